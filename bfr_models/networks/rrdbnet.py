"""RRDBNet, the generator of ESRGAN (arXiv 1809.00219) and Real-ESRGAN (arXiv 2107.10833): residual-in-residual dense
blocks, without norms, then two enlargements by 2.

Factor 2 has a pixel-unshuffle of 2 in front (Real-ESRGAN, sec. 3.3): the blocks work at half the side, which makes
the two enlargements one. Layers are named as in Real-ESRGAN's published files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import RRDBNetConfig

_ENLARGED = 4  # by the two layers at the end
_RESIDUAL = 0.2  # share of what a block adds (ESRGAN, sec. 3.1: residual scaling)
_CONVS = 5  # of a dense block


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class _DenseBlock(nn.Module):
    """Each layer sees what all layers before it have made, and the block's input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        outs = [growth] * (_CONVS - 1) + [channels]
        for number, out in enumerate(outs):
            self.add_module(f"conv{number + 1}", _conv(channels + number * growth, out))

    def forward(self, x: Tensor) -> Tensor:
        *layers, last = self.children()
        seen = x
        for layer in layers:
            seen = torch.cat([seen, _active(layer(seen))], dim=1)
        return x + _RESIDUAL * last(seen)


class _Block(nn.Module):
    """Three dense blocks, and the input again."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_DenseBlock(channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _RESIDUAL * added


class RRDBNet(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> (B, 3, factor H, factor W), not clipped. H and W must be multiples of
    `unshuffle`."""

    def __init__(self, config: RRDBNetConfig | None = None) -> None:
        super().__init__()
        c = config or RRDBNetConfig()
        self.factor = c.factor
        self.unshuffle = _ENLARGED // c.factor
        self.conv_first = _conv(3 * self.unshuffle**2, c.channels)
        self.body = nn.Sequential(*(_Block(c.channels, c.growth) for _ in range(c.blocks)))
        self.conv_body = _conv(c.channels, c.channels)
        self.conv_up1 = _conv(c.channels, c.channels)
        self.conv_up2 = _conv(c.channels, c.channels)
        self.conv_hr = _conv(c.channels, c.channels)
        self.conv_last = _conv(c.channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        first = self.conv_first(F.pixel_unshuffle(image, self.unshuffle))
        x = first + self.conv_body(self.body(first))
        for layer in (self.conv_up1, self.conv_up2):
            x = _active(layer(F.interpolate(x, scale_factor=2, mode="nearest")))
        enlarged: Tensor = self.conv_last(_active(self.conv_hr(x)))
        return enlarged
