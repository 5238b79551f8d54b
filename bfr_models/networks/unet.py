"""The diffusion U-Net of the guided-diffusion family that DifFace's prior belongs to, behind a pixel-unshuffle where
speed matters. Its parameters have the names of diffusers' UNet2DModel.

Fixed here: GroupNorm with eps 1e-5, also in the attention blocks, and convolutional resampling.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.blocks import Downsample, MiddleBlock, ResBlock, SelfAttention, Upsample, time_features
from bfr_models.networks.configs import UNetConfig

EPS = 1e-5


class UNet(nn.Module):
    """eps_theta(x_t, t): (B, 3 + condition, H, W) and (B,) timesteps -> (B, 3, H, W).

    With `learn_sigma` the output is (B, 6, H, W): eps, and after it the variance v of
    `bfr_models.diffusion.sampling.ancestral`.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.unshuffle = config.unshuffle
        self.net = _Net(config)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return F.pixel_shuffle(self.net(F.pixel_unshuffle(x, self.unshuffle), timestep), self.unshuffle)


class _Net(nn.Module):
    """The U-Net at the resolution that it works at."""

    def __init__(self, c: UNetConfig) -> None:
        super().__init__()
        channels, s2, last = c.channels, c.unshuffle**2, len(c.channels) - 1
        self.conv_in = nn.Conv2d((3 + c.condition_channels) * s2, channels[0], 3, padding=1)
        self.time_embedding = _TimeEmbedding(channels[0])
        block = partial(ResBlock, groups=c.norm_groups, eps=EPS, embedding=4 * channels[0], scale_shift=c.scale_shift)
        attention = partial(SelfAttention, head=c.head_dim, groups=c.norm_groups, eps=EPS)
        self.down_blocks, self.up_blocks, skips = nn.ModuleList(), nn.ModuleList(), [channels[0]]
        for i, (width, layers) in enumerate(zip(channels, c.layers, strict=True)):
            widths = [skips[-1], *[width] * (layers - 1)]
            resnets = [block(given, width) for given in widths]
            attentions = [attention(width) for _ in resnets if i in c.attention_levels]
            down = Downsample(width, both_sides=True) if i < last else None
            self.down_blocks.append(_DownLevel(resnets, attentions, down))
            skips += [width] * (layers + (i < last))
        coarsest = [block(channels[-1], channels[-1]) for _ in range(2)]
        self.mid_block = MiddleBlock(coarsest, attention(channels[-1]))
        given = channels[-1]
        for i, (width, layers) in reversed([*enumerate(zip(channels, c.layers, strict=True))]):
            resnets = []
            for _ in range(layers + 1):
                resnets.append(block(given + skips.pop(), width))
                given = width
            attentions = [attention(width) for _ in resnets if i in c.attention_levels]
            self.up_blocks.append(_UpLevel(resnets, attentions, Upsample(width) if i > 0 else None))
        self.conv_norm_out = nn.GroupNorm(c.norm_groups, channels[0], EPS)
        self.conv_out = nn.Conv2d(channels[0], (6 if c.learn_sigma else 3) * s2, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        embedding = self.time_embedding(timestep.expand(len(x)))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, embedding, skips)
        x = self.mid_block(x, embedding)
        for level in self.up_blocks:
            x = level(x, embedding, skips)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class _TimeEmbedding(nn.Module):
    """(B,) timesteps -> (B, 4 `channels`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, timestep: Tensor) -> Tensor:
        features = time_features(timestep, self.channels).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class _DownLevel(nn.Module):
    """The layers of one resolution on the way down, a residual block each, and self-attention where there is any.

    What each of them makes is appended to `skips`, and taken from there on the way up.
    """

    def __init__(
        self, resnets: list[ResBlock], attentions: list[SelfAttention], downsampler: Downsample | None
    ) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([] if downsampler is None else [downsampler])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, embedding)
            x = self.attentions[i](x) if self.attentions else x
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x


class _UpLevel(nn.Module):
    """The same on the way up, with what the way down has made beside its input."""

    def __init__(self, resnets: list[ResBlock], attentions: list[SelfAttention], upsampler: Upsample | None) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)
        self.upsamplers = nn.ModuleList([] if upsampler is None else [upsampler])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            x = self.attentions[i](x) if self.attentions else x
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x
