"""Gaussian blur kernels, isotropic and anisotropic (as in GFPGAN and DifFace)."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kernel(width: int, sigma_x: float, sigma_y: float, rotation: float) -> Tensor:
    """(width, width) float64 density of N(0, Sigma), summing to 1.

    Sigma = R diag(sigma_x^2, sigma_y^2) R^T with R the rotation by `rotation` radians; sigmas in
    pixels; `width` odd. A sigma so small that only the centre is left gives the identity.
    """
    if width % 2 != 1:
        raise ValueError(f"expected an odd kernel width, got {width}")
    grid = torch.arange(width, dtype=torch.float64) - width // 2
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    angle = torch.tensor(rotation, dtype=torch.float64)
    cos, sin = torch.cos(angle), torch.sin(angle)
    along, across = x * cos + y * sin, -x * sin + y * cos
    kernel = torch.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return kernel / kernel.sum()
