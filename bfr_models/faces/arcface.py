"""ArcFace identity embeddings: 512-d, near-orthogonal for different people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bfr_models.faces.align import warp
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.faces.types import Matrix, Points
from bfr_models.networks.arcface import ArcFace
from bfr_models.networks.iresnet import EMBEDDING, SIDE, ImprovedResNet
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.weights.tensors import load_weights

BATCH = 32

# Left eye, right eye, nose tip, left mouth corner, right mouth corner in the recogniser's crop, (x, y) px:
# InsightFace's template for 96 x 112, in the middle of 112 x 112.
ARCFACE_5: Points = np.array(
    [
        (38.29459953, 51.69630051),
        (73.53179932, 51.50139999),
        (56.02519989, 71.73660278),
        (41.54930115, 92.3655014),
        (70.72990036, 92.20410156),
    ]
)


class CropRecogniser:
    """A network on ArcFace's crop, RGB in [-1, 1]. One object serves several threads at once."""

    def __init__(self, name: str, network: ImprovedResNet, weights: Path, device: str) -> None:
        self.name, self.sha256 = name, load_weights(network, weights)
        self._network = network.requires_grad_(False).eval().to(device)
        self._device = device

    @torch.inference_mode()
    def embed(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        """Aligned square faces of any size -> (n, 512) float32 unit vectors; `BATCH` in one call of the network.

        The other faces of a batch change a face's vector by rounding alone.
        """
        vectors = np.empty((len(faces), EMBEDDING), np.float32)
        for first in range(0, len(faces), BATCH):
            some = slice(first, first + BATCH)
            crops = torch.stack([to_tensor(recogniser_crop(face)) for face in faces[some]])
            vectors[some] = self._network(crops.to(self._device)).cpu().numpy()
        return vectors


class ArcFaceRecogniser(CropRecogniser):
    """IR-SE-50 with facexlib's weights, as `bfr weights` converts them."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        super().__init__("arcface_ir_se50", ArcFace(), weights, device)


def recogniser_crop(face: Uint8Image) -> Uint8Image:
    """A face framed as FFHQ's -> (112, 112, 3) framed as the recogniser's, antialiased."""
    height, width = face.shape[:2]
    if height != width:
        raise ValueError(f"expected a square aligned face, got {width} x {height}")
    return warp(face, _to_recogniser(width), SIDE)


@cache
def _to_recogniser(side: int) -> Matrix:
    """The similarity w = (z - b) / a by which its training faces were aligned: z ~ a w + b, least squares in the face's
    pixels."""
    z, w = (points @ np.array([1, 1j]) for points in (at_size(FFHQ_5, side), ARCFACE_5))
    (a, b), *_ = np.linalg.lstsq(np.stack([w, np.ones(len(w))], axis=1), z, rcond=None)
    scale, shift = 1 / a, -b / a
    return np.array([(scale.real, -scale.imag, shift.real), (scale.imag, scale.real, shift.imag)])
