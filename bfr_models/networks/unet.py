"""The diffusion U-Net: diffusers' UNet2DModel, behind a pixel-unshuffle where speed matters.

The settings that are fixed here are those of the guided-diffusion family that DifFace's prior belongs to:
scale-shift time conditioning, GroupNorm(32, eps 1e-5) also in the attention blocks, convolutional resampling.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.diffusers_models import diffusers_module


class UNet(nn.Module):
    """eps_theta(x_t, t): (B, 3 + condition, H, W) and (B,) timesteps -> (B, 3, H, W)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c, s2 = config, config.unshuffle**2
        levels = range(len(c.channels))
        self.unshuffle = c.unshuffle
        self.net = diffusers_module("models.unets.unet_2d").UNet2DModel(
            sample_size=c.sample_size // c.unshuffle,
            in_channels=(3 + c.condition_channels) * s2,
            out_channels=3 * s2,
            block_out_channels=c.channels,
            layers_per_block=c.layers_per_block,
            down_block_types=[_block("Down", i in c.attention_levels) for i in levels],
            up_block_types=[_block("Up", i in c.attention_levels) for i in reversed(levels)],
            attention_head_dim=c.head_dim,
            attn_norm_num_groups=c.norm_groups,
            norm_num_groups=c.norm_groups,
            norm_eps=1e-5,
            resnet_time_scale_shift="scale_shift",
            downsample_padding=1,
        )

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        eps = self.net(F.pixel_unshuffle(x, self.unshuffle), timestep, return_dict=False)[0]
        return F.pixel_shuffle(eps, self.unshuffle)


def _block(direction: str, attention: bool) -> str:
    return f"{'Attn' if attention else ''}{direction}Block2D"
