"""A convolutional U-Net that restores: the regression network of small faces.

    lq -> PixelUnshuffle(4) -> U-Net -> (conv, PixelShuffle(2), convs) x 2 -> r, g
    hq = lq + r + g_2 (lq_2 - lq) + g_4 (lq_4 - lq)

The U-Net works at a quarter of the side and below, where a face costs little; the tail draws at half and at full size,
so that no token draws its 4 x 4 pixels by itself. lq_s is the degraded face without what is finer than s pixels: noise
is taken away by a choice for each pixel, and need not go through the network to be subtracted. There are no norms: each
residual block starts close to the identity (arXiv 1901.09321), and how noisy a degraded face is, which a norm would
hide, stays readable.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import UNetEstimatorConfig

SMOOTHINGS = (2, 4)  # px


class UNetEstimator(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]; H and W multiples of 4 x 2^(levels - 1)."""

    def __init__(self, config: UNetEstimatorConfig) -> None:
        super().__init__()
        widths, depths, half, full = config.channels, config.blocks, config.half_channels, config.full_channels
        self.first = conv(48, widths[0], gain=4)  # levels around 0.5 spread by about a quarter
        self.down = nn.ModuleList(conv(i, o, 4, stride=2) for i, o in pairwise(widths))
        self.encoder = nn.ModuleList(residual_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        # Faces are aligned: what belongs where is learned once, at the coarsest level.
        self.place = nn.Parameter(torch.zeros(1, widths[-1], config.coarsest, config.coarsest))
        self.decoder = nn.ModuleList(residual_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        self.up = nn.ModuleList(conv(o, 4 * i, 1) for i, o in pairwise(widths))
        self.to_half = conv(widths[0], 4 * half, 1)
        self.at_half = nn.Sequential(conv(half + 12, half), _Block(half))
        self.to_full = conv(half, 4 * full, 1)
        self.at_full = nn.Sequential(conv(full + 3, full), nn.SiLU(), conv(full, 3 + len(SMOOTHINGS), gain=0))

    def forward(self, lq: Tensor) -> Tensor:
        centred = lq - 0.5
        x = self.first(F.pixel_unshuffle(centred, 4))
        skips = []
        for blocks, down in zip(self.encoder, [*self.down, None], strict=True):
            x = blocks(x)
            if down is not None:
                skips.append(x)
                x = down(x)
        x = x + F.interpolate(self.place.to(x.dtype), x.shape[-2:], mode="bilinear")
        x = self.decoder[-1](x)
        for blocks, up, skip in zip(self.decoder[-2::-1], self.up[::-1], skips[::-1], strict=True):
            x = blocks(F.pixel_shuffle(up(x), 2) + skip)
        x = F.pixel_shuffle(self.to_half(x), 2)
        x = self.at_half(torch.cat([x, F.pixel_unshuffle(centred, 2).to(x.dtype)], dim=1))
        x = F.pixel_shuffle(self.to_full(x), 2)
        drawn = self.at_full(torch.cat([x, centred.to(x.dtype)], dim=1))
        hq = lq + drawn[:, :3]
        for gate, smoothing in zip(drawn[:, 3:].split(1, dim=1), SMOOTHINGS, strict=True):
            hq = hq + gate * (smooth(lq, smoothing) - lq)
        return hq


class _Block(nn.Module):
    """x + conv(silu(conv(silu(x)))), at first little more than x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(), conv(channels, channels, gain=2**0.5), nn.SiLU(), conv(channels, channels, gain=0.3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def smooth(x: Tensor, width: int) -> Tensor:
    return F.interpolate(F.avg_pool2d(x, width), x.shape[-2:], mode="bilinear")


def conv(channels: int, out: int, kernel: int = 3, *, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution whose output has `gain` times the standard deviation of its input at first."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2)
    nn.init.normal_(conv.weight, std=gain / (channels * kernel**2) ** 0.5)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(count)))
