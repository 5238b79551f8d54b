"""The variance-preserving SDE (arXiv 2011.13456, eq. 11 and 32): the schedule in continuous time.

    forward       dz = -beta z / 2 dt + sqrt(beta) dw         beta(t) = beta_min + t (beta_max - beta_min), t in [0, 1]
    marginal      z_t = alpha z_0 + sigma eps                 alpha(t)^2 + sigma(t)^2 = 1
    score         grad log p_t(z) = -eps_theta(z, t) / sigma
    reverse SDE   dz = (-beta z / 2 + beta eps / sigma) dt + sqrt(beta) dw
    reverse ODE   dz = (-beta z / 2 + beta eps / (2 sigma)) dt

With the betas 0.1 and 20 its discretisation in 1000 steps is the linear schedule of `bfr_models.diffusion.schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bfr_models.diffusion.levels import Level


@dataclass(frozen=True)
class VPSDE:
    """The schedule, as functions of time."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def beta(self, t: float) -> float:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: float) -> float:
        """-1/2 of the integral of beta from 0 to t."""
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def alpha(self, t: float) -> float:
        return math.exp(self.log_alpha(t))

    def sigma(self, t: float) -> float:
        return math.sqrt(-math.expm1(2 * self.log_alpha(t)))

    def level(self, t: float) -> Level:
        return Level(t, self.alpha(t), self.sigma(t), self.beta(t))

    def levels(self, times: Sequence[float]) -> list[Level]:
        """The levels of a chain down `times`, whose last is 0."""
        return [self.level(t) for t in times]

    def time_of(self, noise: float) -> float:
        """The time at which sigma / alpha is `noise`: the inverse of exp(-lambda)."""
        slope, curve = self.beta_min / 2, (self.beta_max - self.beta_min) / 4  # of -log_alpha
        return (math.sqrt(slope**2 + 2 * curve * math.log1p(noise**2)) - slope) / (2 * curve)

    def diffuse(self, start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """alpha(t) z_0 + sigma(t) noise, at a time for each row: t is (B,) float64 on the CPU."""
        times = t.reshape(-1, 1, 1, 1)
        log_alpha: Tensor = -times.square() * (self.beta_max - self.beta_min) / 4 - times * self.beta_min / 2
        return log_alpha.exp().to(start) * start + (-torch.expm1(2 * log_alpha)).sqrt().to(start) * noise
