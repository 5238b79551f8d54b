"""A convolutional U-Net that draws: what the networks of small faces have in common.

    pictures -> PixelUnshuffle(4) -> U-Net -> (conv, PixelShuffle(2), convs) x 2 -> what is drawn

The U-Net works at a quarter of the side and below, where a face costs little; the tail draws at half and at full size,
so that no token draws its 4 x 4 pixels by itself. There are no norms: each residual block starts close to the identity
(arXiv 1901.09321), and how noisy a degraded face is, which a norm would hide, stays readable.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import DetailConfig, UNetEstimatorConfig


class DrawingUNet(nn.Module):
    """Subclasses say what it sees, and what becomes of what it draws, which is 0 at the start of training."""

    def __init__(self, config: DetailConfig | UNetEstimatorConfig, seen: int, drawn: int) -> None:
        """`seen` and `drawn` are numbers of channels at full size."""
        super().__init__()
        widths, depths, half, full = config.channels, config.blocks, config.half_channels, config.full_channels
        self.first = _conv(16 * seen, widths[0], gain=4)  # levels around 0.5 spread by about a quarter
        self.down = nn.ModuleList(_conv(i, o, 4, stride=2) for i, o in pairwise(widths))
        self.encoder = nn.ModuleList(_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        self.decoder = nn.ModuleList(_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        self.up = nn.ModuleList(_conv(o, 4 * i, 1) for i, o in pairwise(widths))
        self.to_half = _conv(widths[0], 4 * half, 1)
        self.at_half = nn.Sequential(_conv(half + 4 * seen, half), _Block(half))
        self.to_full = _conv(half, 4 * full, 1)
        self.at_full = nn.Sequential(_conv(full + seen, full), nn.SiLU(), _conv(full, drawn, gain=0))

    def draw(self, seen: Tensor, place: Tensor | None = None) -> Tensor:
        """(B, seen, H, W), about [-0.5, 0.5] -> (B, drawn, H, W); H and W multiples of 4 x 2^(levels - 1). `place`,
        (1, C, h, w), is added at the coarsest level."""
        x = self.first(F.pixel_unshuffle(seen, 4))
        skips = []
        for blocks, down in zip(self.encoder, [*self.down, None], strict=True):
            x = blocks(x)
            if down is not None:
                skips.append(x)
                x = down(x)
        if place is not None:
            x = x + F.interpolate(place.to(x.dtype), x.shape[-2:], mode="bilinear")
        x = self.decoder[-1](x)
        for blocks, up, skip in zip(self.decoder[-2::-1], self.up[::-1], skips[::-1], strict=True):
            x = blocks(F.pixel_shuffle(up(x), 2) + skip)
        x = F.pixel_shuffle(self.to_half(x), 2)
        x = self.at_half(torch.cat([x, F.pixel_unshuffle(seen, 2).to(x.dtype)], dim=1))
        x = F.pixel_shuffle(self.to_full(x), 2)
        drawn: Tensor = self.at_full(torch.cat([x, seen.to(x.dtype)], dim=1))
        return drawn


class _Block(nn.Module):
    """x + conv(silu(conv(silu(x)))), at first little more than x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(), _conv(channels, channels, gain=2**0.5), nn.SiLU(), _conv(channels, channels, gain=0.3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def smooth(x: Tensor, width: int) -> Tensor:
    """An image without what is finer than `width` px."""
    return F.interpolate(F.avg_pool2d(x, width), x.shape[-2:], mode="bilinear")


def _conv(channels: int, out: int, kernel: int = 3, *, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution whose output has `gain` times the standard deviation of its input at first."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2)
    nn.init.normal_(conv.weight, std=gain / (channels * kernel**2) ** 0.5)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(count)))
