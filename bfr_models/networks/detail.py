"""A convolutional U-Net that draws a restored face at twice its side: the finest octave, which the methods' own
networks of small faces cannot hold.

    coarse (restored, H/2), lq (H) -> up = bicubic(coarse) -> PixelUnshuffle(4) of both -> U-Net -> tail -> r, g
    hq = up + r + g (lq - lq_2)

lq_2 is the degraded face without what is finer than the coarse one: where that is the person and not noise, it is taken
over by a choice for each pixel. What the coarse face shows is the method's, the finer detail this network's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.unet_estimator import conv, residual_blocks, smooth


class DetailNetwork(nn.Module):
    """lq (B, 3, H, W) and coarse (B, 3, H/2, W/2), both in [0, 1] -> (B, 3, H, W), about [0, 1]; H and W multiples of
    4 x 2^(levels - 1)."""

    def __init__(self, config: DetailConfig) -> None:
        super().__init__()
        widths, depths, half, full = config.channels, config.blocks, config.half_channels, config.full_channels
        self.first = conv(96, widths[0], gain=4)
        self.down = nn.ModuleList(conv(i, o, 4, stride=2) for i, o in pairwise(widths))
        self.encoder = nn.ModuleList(residual_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        self.decoder = nn.ModuleList(residual_blocks(width, depth) for width, depth in zip(widths, depths, strict=True))
        self.up = nn.ModuleList(conv(o, 4 * i, 1) for i, o in pairwise(widths))
        self.to_half = conv(widths[0], 4 * half, 1)
        self.at_half = nn.Sequential(conv(half + 24, half), residual_blocks(half, 1))
        self.to_full = conv(half, 4 * full, 1)
        self.at_full = nn.Sequential(conv(full + 6, full), nn.SiLU(), conv(full, 4, gain=0))

    def forward(self, lq: Tensor, coarse: Tensor) -> Tensor:
        up = F.interpolate(coarse, lq.shape[-2:], mode="bicubic")
        seen = torch.cat([lq, up], dim=1) - 0.5
        x = self.first(F.pixel_unshuffle(seen, 4))
        skips = []
        for blocks, down in zip(self.encoder, [*self.down, None], strict=True):
            x = blocks(x)
            if down is not None:
                skips.append(x)
                x = down(x)
        x = self.decoder[-1](x)
        for blocks, enlarge, skip in zip(self.decoder[-2::-1], self.up[::-1], skips[::-1], strict=True):
            x = blocks(F.pixel_shuffle(enlarge(x), 2) + skip)
        x = F.pixel_shuffle(self.to_half(x), 2)
        x = self.at_half(torch.cat([x, F.pixel_unshuffle(seen, 2).to(x.dtype)], dim=1))
        x = F.pixel_shuffle(self.to_full(x), 2)
        drawn = self.at_full(torch.cat([x, seen.to(x.dtype)], dim=1))
        return up + drawn[:, :3] + drawn[:, 3:] * (lq - smooth(lq, 2))
