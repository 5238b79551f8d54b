"""A convolutional U-Net that restores: the regression network of small faces.

    lq -> DrawingUNet -> r, g
    hq = lq + r + g_2 (lq_2 - lq) + g_4 (lq_4 - lq)

lq_s is the degraded face without what is finer than s pixels: noise is taken away by a choice for each pixel, and need
not go through the network to be subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.networks.drawing_unet import DrawingUNet, smooth

SMOOTHINGS = (2, 4)  # px


class UNetEstimator(DrawingUNet):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]; H and W multiples of 4 x 2^(levels - 1)."""

    def __init__(self, config: UNetEstimatorConfig) -> None:
        super().__init__(config, seen=3, drawn=3 + len(SMOOTHINGS))
        # Faces are aligned: what belongs where is learned once, at the coarsest level.
        self.place = nn.Parameter(torch.zeros(1, config.channels[-1], config.coarsest, config.coarsest))

    def forward(self, lq: Tensor) -> Tensor:
        drawn = self.draw(lq - 0.5, self.place)
        hq = lq + drawn[:, :3]
        for gate, smoothing in zip(torch.split(drawn[:, 3:], 1, dim=1), SMOOTHINGS, strict=True):
            hq = hq + gate * (smooth(lq, smoothing) - lq)
        return hq
