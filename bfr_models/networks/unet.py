"""The diffusion U-Net: diffusers' UNet2DModel, behind a pixel-unshuffle where speed matters.

The settings that are fixed here are those of the guided-diffusion family that DifFace's prior belongs to:
scale-shift time conditioning, GroupNorm(32, eps 1e-5) also in the attention blocks, convolutional resampling.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.diffusers_compat import diffusers_module


class UNet(nn.Module):
    """eps_theta(x_t, t): (B, 3 + condition, H, W) and (B,) timesteps -> (B, 3, H, W).

    With `learn_sigma` the output is (B, 6, H, W): eps, and after it the variance v of
    `bfr_models.diffusion.sampling.ancestral`.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c, s2 = config, config.unshuffle**2
        self.unshuffle = c.unshuffle
        self.net = diffusers_module("models.unets.unet_2d").UNet2DModel(
            sample_size=c.sample_size // c.unshuffle,
            in_channels=(3 + c.condition_channels) * s2,
            out_channels=(6 if c.learn_sigma else 3) * s2,
            block_out_channels=c.channels,
            layers_per_block=min(c.layers),
            down_block_types=_block_types("Down", c),
            up_block_types=_block_types("Up", c)[::-1],
            attention_head_dim=c.head_dim,
            attn_norm_num_groups=c.norm_groups,
            norm_num_groups=c.norm_groups,
            norm_eps=1e-5,
            resnet_time_scale_shift="scale_shift" if c.scale_shift else "default",
            downsample_padding=1,
        )
        if len(set(c.layers)) > 1:
            _deepen(self.net, c)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        output = self.net(F.pixel_unshuffle(x, self.unshuffle), timestep, return_dict=False)[0]
        return F.pixel_shuffle(output, self.unshuffle)


def _block_types(direction: str, c: UNetConfig) -> list[str]:
    """From fine to coarse."""
    return [f"{'Attn' if i in c.attention_levels else ''}{direction}Block2D" for i in range(len(c.channels))]


def _deepen(net: nn.Module, c: UNetConfig) -> None:
    """Gives each level its own number of residual blocks; UNet2DModel knows one number for all of them.

    Its forward pass asks every block for its length, so nothing else changes.
    """
    blocks = diffusers_module("models.unets.unet_2d_blocks")
    common = {
        "temb_channels": 4 * c.channels[0],
        "resnet_eps": 1e-5,
        "resnet_act_fn": "silu",
        "resnet_groups": c.norm_groups,
        "attention_head_dim": c.head_dim,
        "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default",
    }
    down_types, up_types, last = _block_types("Down", c), _block_types("Up", c), len(c.channels) - 1
    for i, (channels, layers) in enumerate(zip(c.channels, c.layers, strict=True)):
        finer, coarser = c.channels[max(i - 1, 0)], c.channels[min(i + 1, last)]
        net.down_blocks[i] = blocks.get_down_block(  # type: ignore[operator]
            down_types[i], layers, finer, channels, add_downsample=i < last,
            downsample_padding=1, downsample_type="conv", **common,
        )  # fmt: skip
        net.up_blocks[last - i] = blocks.get_up_block(  # type: ignore[operator]
            up_types[i], layers + 1, finer, channels, coarser, add_upsample=i > 0, upsample_type="conv", **common
        )
