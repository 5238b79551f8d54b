"""The classical degradation of blind face restoration, seeded per face.

y = { [ (x * k_sigma) down_r + n_delta ]_JPEG_q } up_r       (DifFace eq. 14, GFPGAN eq. 8)

Blur with reflected borders, bilinear resizes without antialiasing (as the papers' OpenCV code does),
Gaussian colour noise, a real JPEG, and 8-bit rounding at the end.

A face below 512 px comes out as if it had been degraded at 512 px and then shrunk. The picture in the middle has
512 / r px whatever the face's size, so its noise and its JPEG are those of the papers; it is often larger than the
face, and its noise is averaged away as it would be. Around it are the resizes of that way: from the smoothest face of
512 px that shrinks to this one, and back over 512 px. What is not equal: detail too fine for the small face, of which
512 px would have let some through as aliasing where little is blurred, and the JPEG's bits for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bfr_models.degradation.ageing import age
from bfr_models.degradation.kernels import gaussian_kernel
from bfr_models.degradation.presets import REFERENCE_SIZE, Preset
from bfr_models.pixels import Uint8Image, resize


@dataclass(frozen=True)
class Draw:
    """One face's degradation, in pixels of that face."""

    kernel: Tensor  # (width, width)
    downsample: float
    noise: float  # grey levels of 255
    quality: int
    enlargement: float = 1.0  # side of the picture that the papers would have degraded, over that of this face


def draw(preset: Preset, size: int, rng: np.random.Generator) -> Draw:
    """Draws a degradation for a face of `size` px."""
    scale = size / REFERENCE_SIZE
    factor = scale if preset.scales_downsample else 1.0
    isotropic = rng.random() < preset.isotropic_probability
    sigma_x = rng.uniform(*preset.sigma) * scale
    sigma_y = rng.uniform(*preset.sigma_y or preset.sigma) * scale
    rotation = rng.uniform(*preset.rotation)
    if isotropic:
        sigma_y = sigma_x
    return Draw(
        kernel=gaussian_kernel(kernel_width(preset, size), sigma_x, sigma_y, rotation),
        downsample=rng.uniform(*preset.downsample) * factor,
        noise=rng.uniform(*preset.noise),
        quality=int(rng.integers(preset.quality[0], preset.quality[1], endpoint=True)),
        enlargement=max(1.0, 1 / factor),
    )


def kernel_width(preset: Preset, size: int) -> int:
    """Of the blur of a face of `size` px."""
    return max(2 * round(preset.kernel_width * size / REFERENCE_SIZE / 2 - 0.5) + 1, 3)


def middle_matrices(to: int, size: int, enlargement: float) -> tuple[Tensor, Tensor]:
    """(to, size) and (size, to): how `apply` resizes the rows of a face to a picture in the middle of `to` px, and
    back; its columns likewise."""
    if enlargement == 1:
        return _bilinear(to, size), _bilinear(size, to)
    return _to_middle(to, size, enlargement), _from_middle(size, to, enlargement)


def apply(image: Uint8Image, drawn: Draw, rng: np.random.Generator) -> Uint8Image:
    """Degrades (H, W, 3) uint8 RGB; same shape and range."""
    height, width = image.shape[:2]
    x = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    pad = drawn.kernel.shape[0] // 2
    kernel = drawn.kernel.float().expand(3, 1, -1, -1)
    x = F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), kernel, groups=3)
    small = max(1, int(height // drawn.downsample)), max(1, int(width // drawn.downsample))
    x = _resize(x, small, drawn.enlargement, _to_middle)
    noise = rng.standard_normal(x.shape, dtype=np.float32) * (drawn.noise / 255.0)
    x = (x + torch.from_numpy(noise)).clamp(0, 1)
    levels = _jpeg(_to_levels(x), drawn.quality)
    x = torch.from_numpy(levels.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    return _to_levels(_resize(x, (height, width), drawn.enlargement, _from_middle))


def degrade(image: Uint8Image, preset: Preset, seed: int) -> Uint8Image:
    """One face, one seed, one result: (H, W, 3) uint8 RGB in and out."""
    rng = np.random.default_rng(seed)
    drawn = draw(preset, max(image.shape[:2]), rng)
    return apply(age(image, rng) if preset.aged else image, drawn, rng)


def _resize(
    x: Tensor, size: tuple[int, int], enlargement: float, matrix: Callable[[int, int, float], Tensor]
) -> Tensor:
    """In float64: in float32 the last bits depend on how many threads there are, and with them a level of some
    pixels."""
    if enlargement == 1:
        return _interpolated(x, size).float()
    rows, columns = (matrix(to, side, enlargement) for to, side in zip(size, x.shape[-2:], strict=True))
    return (rows @ x.double() @ columns.T).float()


@lru_cache(maxsize=256)
def _to_middle(to: int, side: int, enlargement: float) -> Tensor:
    """(to, side): a small face, as the smoothest large one that shrinks to it, to the picture in the middle."""
    large = round(side * enlargement)
    return _bilinear(to, large) @ _enlarge(large, side)


@lru_cache(maxsize=256)
def _from_middle(to: int, side: int, enlargement: float) -> Tensor:
    """(to, side): from the picture in the middle to the large face, and that shrunk."""
    large = round(to * enlargement)
    return _shrink(to, large) @ _bilinear(large, side)


@lru_cache
def _enlarge(to: int, side: int) -> Tensor:
    return torch.linalg.pinv(_shrink(side, to))


@lru_cache
def _shrink(to: int, side: int) -> Tensor:
    return resize(torch.eye(side).double()[None, None], (to, side))[0, 0]


def _bilinear(to: int, side: int) -> Tensor:
    return _interpolated(torch.eye(side)[None, None], (to, side))[0, 0]


def _interpolated(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x.double(), size, mode="bilinear", align_corners=False)


def _to_levels(x: Tensor) -> Uint8Image:
    return x[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _jpeg(image: Uint8Image, quality: int) -> Uint8Image:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
