"""PSNR, SSIM and sharpness of written pixels: uint8 RGB, float64 arithmetic, the literature's settings."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.pixels import Uint8Image

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LUMA = np.array([0.299, 0.587, 0.114])


def psnr(image: Uint8Image, gt: Uint8Image) -> float:
    """10 log10(255^2 / MSE) over all pixels and channels, in dB; inf for equal pictures."""
    _same_shape(image, gt)
    mse = float(np.mean((image.astype(np.float64) - gt) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ssim(image: Uint8Image, gt: Uint8Image) -> float:
    """Mean SSIM over RGB: 11 x 11 Gaussian window of sigma 1.5, valid region, biased covariance (Wang 2004)."""
    _same_shape(image, gt)
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"expected sides of at least {_WINDOW} px, got {image.shape[:2]}")
    x, y = (torch.from_numpy(i.transpose(2, 0, 1).astype(np.float64))[:, None] for i in (image, gt))
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((numerator / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


def sharpness(image: Uint8Image) -> float:
    """Mean length of the luma gradient (central differences), in grey levels per pixel."""
    vertical, horizontal = np.gradient(image @ _LUMA)
    return float(np.hypot(vertical, horizontal).mean())


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(x, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def _same_shape(image: Uint8Image, gt: Uint8Image) -> None:
    if image.shape != gt.shape:
        raise ValueError(f"expected pictures of one shape, got {image.shape} and {gt.shape}")
