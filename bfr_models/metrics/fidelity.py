"""PSNR, SSIM, MS-SSIM and sharpness of written pixels: uint8 RGB, float64 arithmetic, the literature's settings.

All three channels count, the data range is 255, and nothing is cropped, as in BasicSR and thus in
face restoration papers. Values over the luma alone differ, and are not computed here.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.pixels import BLUE, GREEN, RED, Uint8Image

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, from fine to coarse
MS_SSIM_SIDE = (_WINDOW - 1) * 2 ** (len(_SCALES) - 1) + 1
"""Side of the smallest image that MS-SSIM's five scales fit into, px."""

_LUMA = np.array([RED, GREEN, BLUE], np.float32)


def psnr(image: Uint8Image, gt: Uint8Image) -> float:
    """10 log10(255^2 / MSE) over all pixels and channels, in dB; inf for equal images."""
    _same_shape(image, gt)
    mse = float(np.mean((image.astype(np.float64) - gt) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ssim(image: Uint8Image, gt: Uint8Image) -> float:
    """Mean SSIM over RGB: 11 x 11 Gaussian window of sigma 1.5, valid region, biased covariance (Wang 2004)."""
    _same_shape(image, gt)
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"expected sides of at least {_WINDOW} px, got {image.shape[:2]}")
    luminance, structure = _comparisons(_channels(image), _channels(gt))
    return float((luminance * structure).mean())


def ms_ssim(image: Uint8Image, gt: Uint8Image) -> float:
    """Mean MS-SSIM over RGB (Wang 2003): SSIM's structure at five scales, its luminance at the coarsest.

    Each scale halves the sides by the mean of 2 x 2. Negative factors count as 0. ValueError below 161 px.
    """
    _same_shape(image, gt)
    if min(image.shape[:2]) < MS_SSIM_SIDE:
        raise ValueError(f"expected sides of at least {MS_SSIM_SIDE} px, got {image.shape[:2]}")
    x, y = _channels(image), _channels(gt)
    similarity = torch.ones(3, dtype=torch.float64)
    for scale, exponent in enumerate(_SCALES):
        luminance, structure = _comparisons(x, y)
        is_last = scale == len(_SCALES) - 1
        factor = (luminance * structure if is_last else structure).mean(dim=(1, 2, 3))
        similarity *= factor.clamp(min=0) ** exponent
        x, y = (F.avg_pool2d(z, 2, ceil_mode=True) for z in (x, y))
    return float(similarity.mean())


def sharpness(image: Uint8Image) -> float:
    """Mean length of the luma gradient (central differences), in grey levels per pixel."""
    luma = cv2.transform(image.astype(np.float32), _LUMA[None])
    vertical, horizontal = np.gradient(luma)
    return float(cv2.magnitude(vertical, horizontal).mean(dtype=np.float64))


def _channels(image: Uint8Image) -> Tensor:
    """(3, 1, H, W) float64."""
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))[:, None]


def _comparisons(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's luminance and its contrast times structure at each place where the window fits."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_x + var_y + _C2)


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(x, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def _same_shape(image: Uint8Image, gt: Uint8Image) -> None:
    if image.shape != gt.shape:
        raise ValueError(f"expected pictures of one shape, got {image.shape} and {gt.shape}")
