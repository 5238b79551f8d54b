"""The improved residual network of 50 layers (IR-50, arXiv 1801.07698): face recognisers differ in its blocks.

Attribute names are those of the published files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.frozen_batch_norm import FrozenBatchNorm

SIDE = 112
EMBEDDING = 512
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks

Residual = Callable[[int, int, int], nn.Sequential]
"""(channels, channels out, stride) -> what a block adds to its input."""


class ImprovedResNet(nn.Module):
    """(B, 3, 112, 112) in [-1, 1], five-point aligned -> (B, 512) of unit length."""

    def __init__(self, residual: Residual, last_norm: FrozenBatchNorm) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), FrozenBatchNorm(64), nn.PReLU(64))
        self.body = nn.Sequential(*_blocks(residual))
        self.output_layer = nn.Sequential(
            FrozenBatchNorm(512),
            nn.Identity(),  # in training a dropout
            nn.Flatten(),
            nn.Linear(512 * (SIDE // 16) ** 2, EMBEDDING),
            last_norm,
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.output_layer(self.body(self.input_layer(x))), eps=0)


def _blocks(residual: Residual) -> Iterator[nn.Module]:
    channels = 64
    for out, blocks in STAGES:
        for number in range(blocks):
            yield _Block(residual, channels, out, stride=1 if number else 2)
            channels = out


class _Block(nn.Module):
    """The residual; plus the input, thinned out or projected."""

    def __init__(self, residual: Residual, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels != out:
            projection = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, FrozenBatchNorm(out))
        self.res_layer = residual(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y
