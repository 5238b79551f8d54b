"""AdaFace identity embeddings, made for low-quality images: the recogniser of the NTIRE 2025 challenge."""

from __future__ import annotations

from pathlib import Path

from bfr_models.faces.arcface import CropRecogniser
from bfr_models.networks.adaface import AdaFace


class AdaFaceRecogniser(CropRecogniser):
    """IR-50 with AdaFace's weights, trained on MS1MV2, as `bfr weights` converts them."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        super().__init__("adaface_ir50_ms1mv2", AdaFace(), weights, device)
