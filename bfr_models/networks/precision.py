"""What stays in float32 when a network runs in half precision: its norms, in residual blocks with all that follows them
up to the next convolution. And its time embedding, which is computed in float64.

Autocast alone does not ensure that. On a CPU it computes norms in bfloat16, and everywhere the time embedding, on which
every layer depends, in half precision. What follows a norm in float32 moves twice the bytes, which on a GPU is for a
compiler to fuse (the option `compile`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _GroupNorm32(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return _normed(self, x).to(x.dtype)


def _normed(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """x after `norm`, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)


class _LayerNorm32(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class _Linear64(nn.Linear):
    """In float64, rounded once: a product's last digits depend on the number of its rows, and what follows in half
    precision makes a grey level of them. So a face is the same whatever its companions."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.double(), self.weight.double(), self.bias.double()).float()


class _ResidualBlock(nn.Module):
    """diffusers' ResnetBlock2D without what our networks never use (`_is_plain_block`).

    From a norm to the next convolution everything is in float32 and in place, and is rounded once: nearer to the exact
    result than rounding after every step, and faster on a CPU.
    """

    norm1: nn.GroupNorm
    norm2: nn.GroupNorm
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv_shortcut: nn.Conv2d | None
    time_emb_proj: nn.Linear | None
    time_embedding_norm: str

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(_normed(self.norm1, x), inplace=True).to(x.dtype))
        h = self.conv2(F.silu(self._conditioned(h, temb), inplace=True).to(x.dtype))
        return h.add_(x if self.conv_shortcut is None else self.conv_shortcut(x))

    def _conditioned(self, h: Tensor, temb: Tensor | None) -> Tensor:
        """h after the second norm, in float32. The timestep scales and shifts it, or is added before the norm."""
        if self.time_emb_proj is None or temb is None:
            return _normed(self.norm2, h)
        embedding = self.time_emb_proj(F.silu(temb))[:, :, None, None]
        if self.time_embedding_norm == "default":
            return _normed(self.norm2, h + embedding)
        scale, shift = embedding.chunk(2, dim=1)
        return _normed(self.norm2, h).mul_(1 + scale).add_(shift)


class _Attention(nn.Module):
    """diffusers' Attention of an image to itself, whose matrix products read its pixels as they lie in memory."""

    heads: int
    group_norm: nn.GroupNorm
    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    to_out: nn.ModuleList

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h = self.group_norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
        q, k, v = (self._heads_apart(layer(h)) for layer in (self.to_q, self.to_k, self.to_v))
        h = self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h.transpose(1, 2).view_as(x).add_(x)

    def _heads_apart(self, h: Tensor) -> Tensor:
        """(B, H W, C) -> (B, heads, H W, C / heads)."""
        return h.view(*h.shape[:2], self.heads, -1).transpose(1, 2)


def _is_plain_block(module: Any) -> bool:
    return (
        isinstance(module.nonlinearity, nn.SiLU)
        and module.time_embedding_norm in ("default", "scale_shift")
        and module.output_scale_factor == 1
        and not (module.up or module.down or module.skip_time_act or module.dropout.p)
    )


def _is_plain_attention(module: Any) -> bool:
    return (
        isinstance(module.group_norm, nn.GroupNorm)
        and module.residual_connection
        and module.rescale_output_factor == 1
        and not (module.is_cross_attention or module.spatial_norm or module.norm_q or module.norm_k)
    )


_OF_DIFFUSERS: dict[str, tuple[type[nn.Module], Callable[[Any], bool]]] = {
    "ResnetBlock2D": (_ResidualBlock, _is_plain_block),
    "Attention": (_Attention, _is_plain_attention),
}
"""By name, because not every worker needs diffusers."""


def keep_float32(network: nn.Module) -> nn.Module:
    """Makes autocast leave the norms and the time embedding of `network`, in evaluation mode, alone. Parameter names do
    not change, nor, but for rounding, does any result outside autocast."""
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = _GroupNorm32
        elif isinstance(module, nn.LayerNorm):
            module.__class__ = _LayerNorm32
        elif isinstance(module, nn.Linear) and ("time_embedding." in name or name.endswith("time_emb_proj")):
            module.__class__ = _Linear64
        elif type(module).__name__ in _OF_DIFFUSERS:
            replacement, is_plain = _OF_DIFFUSERS[type(module).__name__]
            if is_plain(module):
                module.__class__ = replacement
    return network
