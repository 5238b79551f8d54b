"""SwinIR (arXiv 2108.10257) as DifFace uses it: a restorer behind a pixel-unshuffle.

    lq -> PixelUnshuffle(s) -> conv -> RSTB x n -> conv, + -> (nearest x2, conv) x log2(s) -> hq

Attribute names are those of the published implementations, so that their state dicts load strictly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import SwinIRConfig


class SwinIR(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]; H and W multiples of s x window_size."""

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        c = config
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Sequential(
            nn.PixelUnshuffle(c.unshuffle), nn.Conv2d(3 * c.unshuffle**2, c.embed_dim, 3, padding=1)
        )
        self.patch_embed = _PatchNorm(c.embed_dim)
        rates = torch.split(torch.linspace(0, c.drop_path, sum(c.depths), device="cpu"), list(c.depths))
        self.layers = nn.ModuleList(_RSTB(c, rate.tolist()) for rate in rates)
        self.norm = nn.LayerNorm(c.embed_dim)
        self.conv_after_body = nn.Conv2d(c.embed_dim, c.embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(c.embed_dim, c.num_feat, 3, padding=1), nn.LeakyReLU(inplace=True)
        )
        self.num_upsamples = int(math.log2(c.unshuffle))
        for i in range(self.num_upsamples):
            self.add_module(f"conv_up{i + 1}", nn.Conv2d(c.num_feat, c.num_feat, 3, padding=1))
        self.conv_hr = nn.Conv2d(c.num_feat, c.num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(c.num_feat, 3, 3, padding=1)
        self.depths = c.depths
        self.apply(_init_weights)

    def forward(self, lq: Tensor, luck: Tensor | None = None) -> Tensor:
        """`luck` (B, *config.luck), uniform in [0, 1), drops branches for whole images; for training alone."""
        x = self.conv_first(lq - self.mean)
        x = self.conv_after_body(self._body(x, luck)) + x
        x = self.conv_before_upsample(x)
        for i in range(self.num_upsamples):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{i + 1}")(x), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2)) + self.mean

    def _body(self, x: Tensor, luck: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        tokens = self.patch_embed(_to_tokens(x))
        lucks = [None] * len(self.layers) if luck is None else torch.split(luck, list(self.depths), dim=1)
        for layer, own in zip(self.layers, lucks, strict=True):
            tokens = layer(tokens, height, width, own)
        return _to_map(self.norm(tokens), height, width)


class _PatchNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens)


class _RSTB(nn.Module):
    """Residual Swin Transformer block: attention layers, a convolution, a skip."""

    def __init__(self, c: SwinIRConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = nn.Module()
        self.residual_group.blocks = nn.ModuleList(
            _SwinLayer(c, shift=0 if i % 2 == 0 else c.window_size // 2, drop_path=p) for i, p in enumerate(drop_paths)
        )
        self.conv = nn.Conv2d(c.embed_dim, c.embed_dim, 3, padding=1)

    def forward(self, tokens: Tensor, height: int, width: int, luck: Tensor | None) -> Tensor:
        x = tokens
        for i, block in enumerate(self.residual_group.blocks):  # type: ignore[arg-type]
            x = block(x, height, width, None if luck is None else luck[:, i])
        return _to_tokens(self.conv(_to_map(x, height, width))) + tokens


class _SwinLayer(nn.Module):
    """LN -> (shifted) window attention -> +, LN -> MLP -> +."""

    def __init__(self, c: SwinIRConfig, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.img_size, self.drop_path = c.window_size, c.img_size, drop_path
        self.shift = 0 if c.img_size <= c.window_size else shift
        self.norm1 = nn.LayerNorm(c.embed_dim)
        self.attn = _WindowAttention(c)
        self.norm2 = nn.LayerNorm(c.embed_dim)
        self.mlp = _Mlp(c.embed_dim, int(c.embed_dim * c.mlp_ratio))
        mask = _shift_mask(c.img_size, c.img_size, c.window_size, self.shift) if self.shift else None
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor, height: int, width: int, luck: Tensor | None = None) -> Tensor:
        attended, transformed = (None, None) if luck is None else luck.unbind(1)
        x = x + self._drop(self._attend(self.norm1(x), height, width), attended)
        return x + self._drop(self.mlp(self.norm2(x)), transformed)

    def _attend(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, _, dim = x.shape
        w, s = self.window, self.shift
        x = x.view(batch, height, width, dim)
        if s:
            x = torch.roll(x, (-s, -s), (1, 2))
        x = x.view(batch, height // w, w, width // w, w, dim).transpose(2, 3)
        x = self.attn(x.reshape(-1, w * w, dim), self._mask(height, width, x))
        x = x.view(batch, height // w, width // w, w, w, dim).transpose(2, 3)
        x = x.reshape(batch, height, width, dim)
        if s:
            x = torch.roll(x, (s, s), (1, 2))
        return x.view(batch, height * width, dim)

    def _mask(self, height: int, width: int, like: Tensor) -> Tensor | None:
        if not self.shift:
            return None
        if height == width == self.img_size:
            return self.attn_mask  # type: ignore[return-value]
        return _shift_mask(height, width, self.window, self.shift).to(like)

    def _drop(self, x: Tensor, luck: Tensor | None) -> Tensor:
        """Stochastic depth: drops the branch for whole samples."""
        if luck is None or self.drop_path == 0:
            return x
        return x * (luck >= self.drop_path).view(-1, 1, 1) / (1 - self.drop_path)


class _WindowAttention(nn.Module):
    """Multi-head attention inside one window, with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, c: SwinIRConfig) -> None:
        super().__init__()
        self.num_heads = c.num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * c.window_size - 1) ** 2, c.num_heads))
        self.register_buffer("relative_position_index", _relative_positions(c.window_size))
        self.qkv = nn.Linear(c.embed_dim, 3 * c.embed_dim)
        self.proj = nn.Linear(c.embed_dim, c.embed_dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """windows (B x nW, w*w, C); mask (nW, w*w, w*w) of 0 and -100, or None."""
        n_windows, tokens, dim = windows.shape
        qkv = self.qkv(windows).view(n_windows, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(1, tokens, tokens, self.num_heads).permute(0, 3, 1, 2).to(q.dtype)
        if mask is not None:
            bias = (bias + mask.to(q.dtype)[:, None]).repeat(n_windows // mask.shape[0], 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(n_windows, -1, -1, -1))
        return self.proj(x.transpose(1, 2).reshape(n_windows, tokens, dim))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)"""
    return x.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W)"""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)


def _relative_positions(window: int) -> Tensor:
    """(w*w, w*w) index into the bias table for each pair of positions."""
    axis = torch.arange(window)
    coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
    offset = coords[:, :, None] - coords[:, None, :] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def _shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """(nW, w*w, w*w): -100 between positions that the cyclic shift brought together."""
    region = torch.zeros(height, width)
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(edges):
        for j, columns in enumerate(edges):
            region[rows, columns] = 3 * i + j
    region = region.view(height // window, window, width // window, window).transpose(1, 2)
    region = region.reshape(-1, window * window)
    return (region[:, None, :] != region[:, :, None]).float() * -100.0


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
