"""JPEG's losses in torch, for a whole batch at once, each image at its own quality (ITU-T T.81).

    RGB -> YCbCr, Cb and Cr halved -> 8 x 8 DCT -> rounded to multiples of a table's steps -> the same way back

What libjpeg does with its defaults, as Pillow calls it: 4:2:0, Annex K's tables scaled by quality, colours whole
numbers on the way, the small colours enlarged by a triangle filter. The entropy coding loses nothing, and is left out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.pixels import BLUE, GREEN, RED

BLOCK, MULTIPLE = 8, 16  # of a block of Y, and of the four whose Cb and Cr make one

# Annex K.1: the steps of Y, and those of Cb and Cr, at quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip


def jpeg(levels: Tensor, quality: Tensor) -> Tensor:
    """(B, 3, H, W) RGB, whole levels from 0 to 255 as floats, sides multiples of 16; (B,) quality from 1 to 100 -> the
    same after encoding and decoding."""
    if any(side % MULTIPLE for side in levels.shape[-2:]):
        raise ValueError(f"expected sides that are multiples of {MULTIPLE}, got {tuple(levels.shape[-2:])}")
    y, colours = _to_ycbcr(levels)
    luma, chroma = quantisation_tables(quality.to(levels.device))
    y = _through_blocks(y, luma)
    colours = _enlarged(_through_blocks(_halved(colours), chroma))
    return _to_rgb(y, colours)


def quantisation_tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) -> two of (B, 8, 8): the steps of Y, and of Cb and Cr, vertical frequency first."""
    scale = torch.where(quality < 50, 5000 // quality.clamp(min=1), 200 - 2 * quality).view(-1, 1, 1)
    luma, chroma = _tables(quality.device)
    return ((luma * scale + 50) // 100).clamp(1, 255), ((chroma * scale + 50) // 100).clamp(1, 255)


def _to_ycbcr(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Y (B, 1, H, W), and Cb, Cr (B, 2, H, W), whole numbers (JFIF)."""
    red, green, blue = rgb.unbind(1)
    y = RED * red + GREEN * green + BLUE * blue
    colours = [(blue - y) / (2 - 2 * BLUE) + 128, (red - y) / (2 - 2 * RED) + 128]
    return y.round()[:, None], torch.stack(colours, 1).round()


def _to_rgb(y: Tensor, colours: Tensor) -> Tensor:
    cb, cr = (colours - 128).unbind(1)
    red, blue = y[:, 0] + (2 - 2 * RED) * cr, y[:, 0] + (2 - 2 * BLUE) * cb
    green = (y[:, 0] - RED * red - BLUE * blue) / GREEN
    return torch.stack([red, green, blue], 1).round().clamp(0, 255)


def _halved(colours: Tensor) -> Tensor:
    """The mean of each 2 x 2; halves go down in even columns and up in odd ones, as libjpeg balances its rounding."""
    mean = F.avg_pool2d(colours, 2)
    bias = 0.25 * (1 + torch.arange(mean.shape[-1], device=mean.device) % 2)
    return (mean + bias).floor()


def _enlarged(colours: Tensor) -> Tensor:
    """Twice as large: each pixel is 9, 3, 3 and 1 sixteenths of its four nearest; rounded as in libjpeg."""
    padded = F.pad(colours, (1, 1, 1, 1), mode="replicate")
    near = padded[:, :, 1:-1]
    rows = torch.stack([3 * near + padded[:, :, :-2], 3 * near + padded[:, :, 2:]], 3).flatten(2, 3)
    near = rows[..., 1:-1]
    left, right = 3 * near + rows[..., :-2] + 8, 3 * near + rows[..., 2:] + 7
    return torch.stack([left, right], -1).flatten(-2).div(16).floor()


def _through_blocks(channels: Tensor, steps: Tensor) -> Tensor:
    """(B, C, H, W) through the transform of each block, and back; (B, 8, 8) steps."""
    batch, count, height, width = channels.shape
    dct = _dct(channels.device)
    blocks = channels.reshape(batch, count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4) - 128
    steps = steps.view(batch, 1, 1, 1, BLOCK, BLOCK).to(blocks)
    kept = (dct @ blocks @ dct.T / steps).round() * steps
    blocks = (dct.T @ kept @ dct + 128).round().clamp(0, 255)
    return blocks.transpose(3, 4).reshape(channels.shape)


@lru_cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(_LUMA, device=device), torch.tensor(_CHROMA, device=device)


@lru_cache
def _dct(device: torch.device) -> Tensor:
    """(8, 8), orthonormal: row k has the cosine of frequency k."""
    k, n = torch.arange(BLOCK).view(-1, 1), torch.arange(BLOCK)
    rows = torch.cos(math.pi / BLOCK * (n + 0.5) * k) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows.to(device)
