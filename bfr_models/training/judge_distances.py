"""Distances of a face to its clean self that the judge learns to foresee.

Two of them, of different kinds, so that neither's taste alone is learnt: features of a face detector, compared as LPIPS
compares features, and a normalised Laplacian pyramid (Laparra et al. 2016), which has no network. Neither scores a run,
and the judge itself looks through none: its features are trained from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.faces.retinaface import load_network
from bfr_models.training.perceptual import feature_distance

SIDES = (128, 256)  # px: faces are compared at their own size, but not below the first nor above the second
_LEVELS = 5
_DETECTOR_MEAN = (104.0, 117.0, 123.0)  # BGR, of [0, 255]


class Distances:
    """`names` in the order of the columns, and what each counts in the judge's gain."""

    names = ("detector", "pyramid")
    weights = (0.75, 0.25)

    def __init__(self, retinaface: Path) -> None:
        body = dict(load_network(retinaface).eval().body.named_children())
        fine, middle = body.get("stage1"), body.get("stage2")
        if not isinstance(fine, nn.Sequential) or not isinstance(middle, nn.Sequential):
            raise UsageError(f"expected RetinaFace with a MobileNet body at {retinaface}, found another")
        self._edges, self._parts = fine, list(middle)[:3]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor], clean: Tensor) -> Tensor:
        """(n, 2): of each (3, H, W) in [-1, 1] to `clean`, which is as large."""
        batch = torch.stack([*images, clean])
        return torch.stack([self._of_features(batch), _of_pyramids(batch)], dim=1).double()

    def _of_features(self, batch: Tensor) -> Tensor:
        x = ((batch + 1) * 127.5).flip(1) - torch.tensor(_DETECTOR_MEAN).view(1, 3, 1, 1)
        x = self._edges(x)  # these are not compared: all that they see of a smooth face is that it is smooth
        total = torch.zeros(len(batch) - 1)
        for layer in self._parts:
            x = layer(x)
            total += feature_distance(x[:-1], x[-1:])
        return total


def _of_pyramids(batch: Tensor) -> Tensor:
    """Root mean square of the differences at each scale, where each is normalised by the activity around it."""
    x = (batch + 1) / 2
    total = torch.zeros(len(batch) - 1)
    for _ in range(_LEVELS):
        coarse = _blur(x)
        detail = x - coarse
        normal = detail / (0.17 / 4 + _blur(detail.abs()))
        total += (normal[:-1] - normal[-1:]).square().mean(dim=(1, 2, 3)).sqrt()
        x = coarse[..., ::2, ::2]
    return total / _LEVELS


def _blur(x: Tensor) -> Tensor:
    taps = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])
