"""The discrete noise schedule, which the code of all three papers shares, in float64.

Notation: betas beta_t, alphas_cumprod abar_t = prod_{s<=t} (1 - beta_s), t = 0..T-1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bfr_models.diffusion.levels import CLEAN, Level

NUM_TRAIN_TIMESTEPS = 1000


def linear_alphas_cumprod(
    num_train_timesteps: int = NUM_TRAIN_TIMESTEPS, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tensor:
    """(T,) float64 of abar_t for betas linear from `beta_start` to `beta_end`."""
    betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def truncated_timesteps(start: int, num_steps: int) -> list[int]:
    """`num_steps` timesteps from `start` down to 0, evenly spaced and rounded.

    The chain's start is noised to the first one, and each is denoised once.
    """
    if not 1 <= num_steps <= start + 1:
        raise ValueError(f"expected 1 <= num_steps <= start + 1 = {start + 1}, got {num_steps}")
    if num_steps == 1:
        return [start]
    return [round(start * (num_steps - 1 - i) / (num_steps - 1)) for i in range(num_steps)]


def fractional_timesteps(start: float, num_steps: int) -> list[float]:
    """As `truncated_timesteps`, but not rounded, and from a start that need not be whole."""
    if not 1 <= num_steps <= start + 1:
        raise ValueError(f"expected 1 <= num_steps <= start + 1 = {start + 1}, got {num_steps}")
    return [float(start)] + [start * (num_steps - 1 - i) / (num_steps - 1) for i in range(1, num_steps)]


def abars_at(timesteps: Sequence[float], alphas_cumprod: Tensor) -> Tensor:
    """(n,) abar of timesteps in [0, T - 1]; log abar is linear between two whole ones."""
    t = torch.tensor(timesteps, dtype=alphas_cumprod.dtype)
    if not 0 <= float(t.min()) <= float(t.max()) <= len(alphas_cumprod) - 1:
        raise ValueError(f"expected timesteps in [0, {len(alphas_cumprod) - 1}], got {list(timesteps)}")
    below, above = alphas_cumprod[t.floor().long()], alphas_cumprod[t.ceil().long()]
    return below * (above / below) ** t.frac()


def levels_at(timesteps: Sequence[float], alphas_cumprod: Tensor) -> list[Level]:
    """The levels of a chain down `timesteps`, which are descending and need not be whole, and `CLEAN` below them."""
    if not timesteps:
        raise ValueError("expected at least one timestep, got none")
    abars = abars_at(timesteps, alphas_cumprod).tolist()
    return [Level(t, math.sqrt(a), math.sqrt(1 - a)) for t, a in zip(timesteps, abars, strict=True)] + [CLEAN]


def respaced_timesteps(num_steps: int, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """The whole chain in `num_steps` timesteps, 0 and the last among them, ascending (arXiv 2102.09672, section 4)."""
    if not 2 <= num_steps <= num_train_timesteps:
        raise ValueError(f"expected 2 <= num_steps <= {num_train_timesteps}, got {num_steps}")
    return [round(i * (num_train_timesteps - 1) / (num_steps - 1)) for i in range(num_steps)]


def add_noise(x_start: Tensor, noise: Tensor, abar: Tensor | float) -> Tensor:
    """q(x_t | x_0): sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; `abar` broadcasts over (B, C, H, W)."""
    abar = torch.as_tensor(abar, dtype=torch.float64, device=x_start.device)
    return abar.sqrt().to(x_start) * x_start + (1 - abar).sqrt().to(x_start) * noise


def contraction(abar: float) -> float:
    """kappa_N = abar_N / (1 - abar_N): KL[p(x_N|y0) || q(x_N|x0)] = kappa_N ||x0 - f(y0)||^2 / 2.

    DifFace's error contraction: the smaller kappa, the less of the estimator's error survives.
    """
    return abar / (1.0 - abar)
