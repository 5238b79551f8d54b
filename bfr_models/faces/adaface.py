"""Who somebody is, by AdaFace, which is meant for poor pictures: the recogniser of the NTIRE 2025 challenge."""

from __future__ import annotations

from pathlib import Path

from bfr_models.faces.arcface import CropRecogniser
from bfr_models.faces.types import ADAFACE
from bfr_models.networks.adaface import AdaFace


class AdaFaceRecogniser(CropRecogniser):
    """IR-50 with AdaFace's weights of MS1MV2, as `bfr weights` converts them."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        super().__init__(ADAFACE, AdaFace(), weights, device)
