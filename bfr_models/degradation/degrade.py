"""The classical degradation of blind face restoration, seeded per face.

y = { [ (x * k_sigma) down_r + n_delta ]_JPEG_q } up_r       (DifFace eq. 14, GFPGAN eq. 8)

Blur with reflected borders, bilinear resizes without antialiasing (as the papers' OpenCV code does),
Gaussian colour noise, a real JPEG, and 8-bit rounding at the end.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bfr_models.degradation.kernels import gaussian_kernel
from bfr_models.degradation.presets import REFERENCE_SIZE, Preset
from bfr_models.pixels import Uint8Image


@dataclass(frozen=True)
class Draw:
    """One face's degradation, in pixels of that face."""

    kernel: Tensor  # (width, width)
    downsample: float
    noise: float  # grey levels of 255
    quality: int


def draw(preset: Preset, size: int, rng: np.random.Generator) -> Draw:
    """Draws a degradation for a face of `size` px."""
    scale = size / REFERENCE_SIZE
    width = 2 * round(preset.kernel_width * scale / 2 - 0.5) + 1
    isotropic = rng.random() < preset.isotropic_probability
    sigma_x = rng.uniform(*preset.sigma) * scale
    sigma_y = rng.uniform(*preset.sigma_y or preset.sigma) * scale
    rotation = rng.uniform(*preset.rotation)
    if isotropic:
        sigma_y = sigma_x
    return Draw(
        kernel=gaussian_kernel(max(width, 3), sigma_x, sigma_y, rotation),
        downsample=rng.uniform(*preset.downsample),
        noise=rng.uniform(*preset.noise),
        quality=int(rng.integers(preset.quality[0], preset.quality[1], endpoint=True)),
    )


def apply(image: Uint8Image, drawn: Draw, rng: np.random.Generator) -> Uint8Image:
    """Degrades (H, W, 3) uint8 RGB; same shape and range."""
    height, width = image.shape[:2]
    x = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    pad = drawn.kernel.shape[0] // 2
    kernel = drawn.kernel.float().expand(3, 1, -1, -1)
    x = F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), kernel, groups=3)
    small = max(1, int(height // drawn.downsample)), max(1, int(width // drawn.downsample))
    x = F.interpolate(x, small, mode="bilinear", align_corners=False)
    noise = rng.standard_normal(x.shape, dtype=np.float32) * (drawn.noise / 255.0)
    x = (x + torch.from_numpy(noise)).clamp(0, 1)
    levels = _jpeg(_to_levels(x), drawn.quality)
    x = torch.from_numpy(levels.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    return _to_levels(F.interpolate(x, (height, width), mode="bilinear", align_corners=False))


def degrade(image: Uint8Image, preset: Preset, seed: int) -> Uint8Image:
    """One face, one seed, one result: (H, W, 3) uint8 RGB in and out."""
    rng = np.random.default_rng(seed)
    return apply(image, draw(preset, max(image.shape[:2]), rng), rng)


def _to_levels(x: Tensor) -> Uint8Image:
    return x[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _jpeg(image: Uint8Image, quality: int) -> Uint8Image:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
