"""The features of FID: faces through the Inception of 2015-12-05, resized as a protocol says.

    pytorch-fid  bilinear without antialiasing, then 2 x / 255 - 1: most face restoration papers
    clean-fid    PIL's bicubic, antialiased, channel by channel in float and clipped, then (x - 128) / 128

The two give different distances (arXiv 2104.11222): the choice is stored with the features as `preprocessing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bfr_models.metrics._float32 import float32_inference
from bfr_models.metrics.frechet import INCEPTION, FeatureSource
from bfr_models.networks.inception import FEATURES, SIDE, Inception
from bfr_models.pixels import Uint8Image
from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import load_weights

WEIGHTS = "fid-inception"
"""Stem of its weight file; `find_weight` says whether it is installed."""

Preprocessing = Literal["pytorch-fid", "clean-fid"]


class InceptionFeatures:
    """UsageError, which says how to get them, where the weights are not."""

    def __init__(self, device: str = "cpu", preprocessing: str = "pytorch-fid", batch_size: int = 32) -> None:
        path = require_weight(WEIGHTS)
        network = Inception()
        sha256 = load_weights(network, path)
        published = read_card(path).get("source", {}).get("sha256", sha256)  # the same wherever it was converted
        self.source = FeatureSource(INCEPTION, published, preprocessing)
        self._prepare = prepare_pytorch_fid if preprocessing == "pytorch-fid" else prepare_clean_fid
        self._network = network.requires_grad_(False).eval().to(device)
        self._device, self._batch_size = torch.device(device), batch_size

    def extract(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        """Faces of any sizes -> (n, 2048) float32, each as if it were alone but for a GPU's rounding."""
        found = [np.zeros((0, FEATURES), dtype=np.float32)]
        with float32_inference(self._device):
            for start in range(0, len(faces), self._batch_size):
                batch = torch.stack([self._prepare(face) for face in faces[start : start + self._batch_size]])
                found.append(self._network(batch.to(self._device)).cpu().numpy())
        return np.concatenate(found)


def prepare_pytorch_fid(face: Uint8Image) -> Tensor:
    """(3, 299, 299) float32 in [-1, 1]."""
    levels = torch.from_numpy(np.ascontiguousarray(face.transpose(2, 0, 1)))[None].float() / 255
    return 2 * F.interpolate(levels, (SIDE, SIDE), mode="bilinear", align_corners=False)[0] - 1


def prepare_clean_fid(face: Uint8Image) -> Tensor:
    """(3, 299, 299) float32 in [-1, 127/128]."""
    channels = [Image.fromarray(face[..., i].astype(np.float32)) for i in range(3)]
    resized = np.stack([np.asarray(c.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in channels])
    return (torch.from_numpy(resized.clip(0, 255)) - 128) / 128
