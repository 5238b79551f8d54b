"""ArcFace's recogniser (arXiv 1801.07698): an improved residual network of 50 layers with squeeze-excitation.

Attribute names are those of facexlib's `recognition_arcface_ir_se50.pth`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.frozen_batch_norm import FrozenBatchNorm
from bfr_models.networks.iresnet import EMBEDDING, ImprovedResNet

REDUCTION = 16  # of channels inside a squeeze-excitation


class ArcFace(ImprovedResNet):
    """(B, 3, 112, 112) RGB in [-1, 1], five-point aligned -> (B, 512) of unit length."""

    def __init__(self) -> None:
        super().__init__(_residual, FrozenBatchNorm(EMBEDDING))


def _residual(channels: int, out: int, stride: int) -> nn.Sequential:
    """Norm, 3x3, PReLU, 3x3, norm, excite."""
    return nn.Sequential(
        FrozenBatchNorm(channels),
        nn.Conv2d(channels, out, 3, 1, 1, bias=False),
        nn.PReLU(out),
        nn.Conv2d(out, out, 3, stride, 1, bias=False),
        FrozenBatchNorm(out),
        _Excitation(out),
    )


class _Excitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))
