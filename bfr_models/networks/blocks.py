"""The blocks of which latent diffusion's U-Nets and autoencoders are made, under diffusers' names for their parameters:
its checkpoints load as they are, and a test compares what both compute, bit by bit.

They are not diffusers' own because importing these takes longer than a dozen faces.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))): (B, in, H, W) -> (B, out, H, W).

    The embedding of the timestep, (B, `embedding`), is projected and added in between; with `scale_shift` it scales
    and shifts the second norm instead.
    """

    def __init__(
        self, channels: int, out: int, groups: int, eps: float, embedding: int | None = None, scale_shift: bool = False
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.time_emb_proj = None if embedding is None else nn.Linear(embedding, 2 * out if scale_shift else out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is None:
            h = self.norm2(h)
        else:
            assert embedding is not None, "a block with a time embedding is given one"
            projected = self.time_emb_proj(F.silu(embedding))[:, :, None, None]
            if self.scale_shift:
                scale, shift = projected.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h + projected)
        h = self.conv2(F.silu(h))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class SelfAttention(nn.Module):
    """x + attention over all places of (B, C, H, W), with heads of `head` channels."""

    def __init__(self, channels: int, head: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = channels // head
        self.group_norm = nn.GroupNorm(groups, channels, eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        places = self.group_norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (
            project(places).view(batch, -1, self.heads, channels // self.heads).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, -1, channels)
        return self.to_out[0](attended).transpose(1, 2).reshape(batch, channels, height, width) + x


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H/2, W/2); the border is one zero on each side, or one to the right and below only."""

    def __init__(self, channels: int, *, both_sides: bool) -> None:
        super().__init__()
        self.both_sides = both_sides
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if both_sides else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.both_sides else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if 4 * x.numel() > 2**31:  # more than torch counts with channels last
            x = x.contiguous()
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class MiddleBlock(nn.Module):
    """Two residual blocks at the coarsest level, with self-attention between them."""

    def __init__(self, resnets: list[ResBlock], attention: SelfAttention | None) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([attention] if attention is not None else [])
        self.resnets = nn.ModuleList(resnets)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        x = self.resnets[0](x, embedding)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, embedding)


def time_features(timestep: Tensor, channels: int) -> Tensor:
    """(B,) -> (B, channels): cosines and sines of the timestep at frequencies from 1 to about 1/10000."""
    half = channels // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device)
    angles = timestep[:, None].float() * torch.exp(exponent / half)[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
