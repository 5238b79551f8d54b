"""A convolutional U-Net that draws a regression network's face at twice its side: the finest octave, which the networks
of small faces cannot hold.

    coarse (the estimate, H/2), lq (H) -> up = bicubic(coarse); up, lq -> DrawingUNet -> r, g
    hq = up + r + g (lq - lq_2)

lq_2 is the degraded face without what is finer than the coarse one: where that is the person and not noise, it is taken
over by a choice for each pixel. How a method's own face gets there: `bfr_models.methods.detailed`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.drawing_unet import DrawingUNet, smooth


class DetailNetwork(DrawingUNet):
    """lq (B, 3, H, W) and coarse (B, 3, H/2, W/2), both in [0, 1] -> (B, 3, H, W), about [0, 1]; H and W multiples of
    4 x 2^(levels - 1)."""

    def __init__(self, config: DetailConfig) -> None:
        super().__init__(config, seen=6, drawn=4)

    def forward(self, lq: Tensor, coarse: Tensor) -> Tensor:
        up = F.interpolate(coarse, lq.shape[-2:], mode="bicubic")
        drawn = self.draw(torch.cat([lq, up], dim=1) - 0.5)
        return up + drawn[:, :3] + drawn[:, 3:] * (lq - smooth(lq, 2))
