"""Noise levels: what a schedule makes of its timesteps, and all that a sampler knows of the schedule.

    x_t = alpha x_0 + sigma eps,    alpha^2 + sigma^2 = 1,    lambda = log(alpha / sigma)

`bfr_models.diffusion.schedule` makes them of the 1000 trained timesteps, `bfr_models.diffusion.sde` of continuous time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """Python floats: a step on an accelerator copies no coefficient there, and so never waits for it."""

    t: float  # what the network is told
    alpha: float
    sigma: float
    beta: float = math.nan  # of the SDE at t; only `euler_maruyama` and `heun` need it, and only the SDE has it

    @property
    def half_log_snr(self) -> float:
        """lambda"""
        return math.log(self.alpha / self.sigma)

    def diffuse(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """q(x_t | x_0): x_0 brought to this level."""
        return self.alpha * x_0 + self.sigma * noise

    def predict_start(self, x: Tensor, eps: Tensor) -> Tensor:
        """The mean of x_0 that eps implies (DDIM eq. 9)."""
        return (x - self.sigma * eps) / self.alpha


CLEAN = Level(math.nan, 1.0, 0.0)
"""x_0 itself, where every chain ends; no network is asked there."""
