"""ArcFace's recogniser (arXiv 1801.07698): an improved residual network of 50 layers with squeeze-excitation.

Attribute names are those of facexlib's `recognition_arcface_ir_se50.pth`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.frozen_batch_norm import FrozenBatchNorm

SIDE = 112
EMBEDDING = 512
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks
REDUCTION = 16  # of channels inside a squeeze-excitation


class ArcFace(nn.Module):
    """(B, 3, 112, 112) RGB in [-1, 1], five-point aligned -> (B, 512) of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), FrozenBatchNorm(64), nn.PReLU(64))
        self.body = nn.Sequential(*_blocks())
        self.output_layer = nn.Sequential(
            FrozenBatchNorm(512),
            nn.Identity(),  # in training a dropout
            nn.Flatten(),
            nn.Linear(512 * (SIDE // 16) ** 2, EMBEDDING),
            FrozenBatchNorm(EMBEDDING),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.output_layer(self.body(self.input_layer(x))), eps=0)


def _blocks() -> Iterator[nn.Module]:
    channels = 64
    for out, blocks in STAGES:
        for number in range(blocks):
            yield _Block(channels, out, stride=1 if number else 2)
            channels = out


class _Block(nn.Module):
    """Norm, 3x3, PReLU, 3x3, norm, excite; plus the input, thinned out or projected."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels != out:
            projection = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, FrozenBatchNorm(out))
        self.res_layer = nn.Sequential(
            FrozenBatchNorm(channels),
            nn.Conv2d(channels, out, 3, 1, 1, bias=False),
            nn.PReLU(out),
            nn.Conv2d(out, out, 3, stride, 1, bias=False),
            FrozenBatchNorm(out),
            _Excitation(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


class _Excitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))
