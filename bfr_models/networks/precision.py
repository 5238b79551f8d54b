"""What stays in float32 when a network runs in half precision: its norms and its time embedding.

Autocast alone does not ensure that. On a CPU it computes norms in bfloat16; on CUDA it computes them in float32 but
hands float32 on, so that activations and additions after them move twice the bytes; and on both it computes the time
embedding, on which every layer depends, in half precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _GroupNorm32(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class _LayerNorm32(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class _Linear32(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


class _TimeProjection(_Linear32):
    """Scale and shift of one residual block: computed in float32, rounded where they meet its activations."""

    def forward(self, x: Tensor) -> Tensor:
        scale_shift, device = super().forward(x), x.device.type
        return scale_shift.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else scale_shift


def keep_float32(network: nn.Module) -> nn.Module:
    """Makes autocast leave the norms and the time embedding of `network` alone. Parameter names do not change, nor
    does anything outside autocast."""
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = _GroupNorm32
        elif isinstance(module, nn.LayerNorm):
            module.__class__ = _LayerNorm32
        elif isinstance(module, nn.Linear) and name.endswith("time_emb_proj"):
            module.__class__ = _TimeProjection
        elif isinstance(module, nn.Linear) and "time_embedding." in name:
            module.__class__ = _Linear32
    return network
