"""The variance-preserving SDE (arXiv 2011.13456, eq. 11 and 32) in continuous time, and one step of four solvers.

    forward       dz = -beta z / 2 dt + sqrt(beta) dw         beta(t) = beta_min + t (beta_max - beta_min), t in [0, 1]
    marginal      z_t = alpha z_0 + sigma eps                 alpha(t)^2 + sigma(t)^2 = 1
    score         grad log p_t(z) = -eps_theta(z, t) / sigma
    reverse SDE   dz = (-beta z / 2 + beta eps / sigma) dt + sqrt(beta) dw
    reverse ODE   dz = (-beta z / 2 + beta eps / (2 sigma)) dt

With the betas 0.1 and 20 its discretisation in 1000 steps is the linear schedule of `bfr_models.diffusion.schedule`.
Times go down; a step to time 0 gives the mean of z_0 that eps implies, with any solver: there the score has a pole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bfr_models.diffusion.sampling import Noise

Model = Callable[[Tensor, float], Tensor]
"""(z_t, t) -> eps, both (B, C, h, w)."""


@dataclass(frozen=True)
class VPSDE:
    """The schedule: functions of a time, or of a tensor of times in float64."""

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

    def half_log_snr(self, t: float) -> float:
        """lambda = log(alpha / sigma)"""
        return self.log_alpha(t) - math.log(self.sigma(t))

    def time_of(self, noise: float) -> float:
        """The time at which sigma / alpha is `noise`: the inverse of exp(-lambda)."""
        slope, curve = self.beta_min / 2, (self.beta_max - self.beta_min) / 4  # of -log_alpha
        return (math.sqrt(slope**2 + 2 * curve * math.log1p(noise**2)) - slope) / (2 * curve)

    def diffuse(self, start: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """alpha(t) z_0 + sigma(t) noise; `t` one time, or (B,) of them."""
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").reshape(-1, 1, 1, 1)
        log_alpha: Tensor = -times.square() * (self.beta_max - self.beta_min) / 4 - times * self.beta_min / 2
        return log_alpha.exp().to(start) * start + (-torch.expm1(2 * log_alpha)).sqrt().to(start) * noise

    def predict_start(self, z: Tensor, eps: Tensor, t: float) -> Tensor:
        """The mean of z_0: (z_t - sigma eps) / alpha."""
        return (z - self.sigma(t) * eps) / self.alpha(t)


@dataclass
class Trajectory:
    """A sample on its way down, and what a multistep solver remembers of its last step."""

    z: Tensor
    start: Tensor | None = None  # the z_0 predicted then
    half_log_snr: float = 0.0  # then


@dataclass(frozen=True)
class Solver:
    """One of the four solvers. `eta` scales the noise of ddim's steps: 0 none, 1 ancestral."""

    name: str
    sde: VPSDE = VPSDE()
    eta: float = 0.0

    @property
    def draws(self) -> bool:
        """Whether the steps take noise."""
        return self.name == "euler-maruyama" or self.eta > 0

    def step(
        self, model: Model, at: Trajectory, eps: Tensor, times: tuple[float, float], noise: Tensor | None
    ) -> Trajectory:
        """From times[0] to times[1] below it; `eps` is the model's at the first, asked again by heun alone.

        `noise` is standard normal, of the shape of z, where the solver `draws`.
        """
        t, to = times
        start = self.sde.predict_start(at.z, eps, t)
        if to == 0:
            return Trajectory(start)
        if self.name == "euler-maruyama":
            return Trajectory(self._euler_maruyama(at.z, eps, t, to, noise))
        if self.name == "heun":
            return Trajectory(self._heun(model, at.z, eps, t, to))
        if self.name == "ddim":
            return Trajectory(self._ddim(start, eps, t, to, noise))
        return self._dpm_solver(at, start, t, to)

    def _euler_maruyama(self, z: Tensor, eps: Tensor, t: float, to: float, noise: Tensor | None) -> Tensor:
        h, beta = t - to, self.sde.beta(t)
        assert noise is not None
        return z + (h * beta) * (z / 2 - eps / self.sde.sigma(t)) + math.sqrt(h * beta) * noise

    def _heun(self, model: Model, z: Tensor, eps: Tensor, t: float, to: float) -> Tensor:
        """The trapezoidal rule with Euler's step as its other end."""
        slope = self._slope(z, eps, t)
        guess = z + (to - t) * slope
        return z + (to - t) / 2 * (slope + self._slope(guess, model(guess, to), to))

    def _slope(self, z: Tensor, eps: Tensor, t: float) -> Tensor:
        return self.sde.beta(t) / 2 * (eps / self.sde.sigma(t) - z)

    def _ddim(self, start: Tensor, eps: Tensor, t: float, to: float, noise: Tensor | None) -> Tensor:
        """DDIM (arXiv 2010.02502) eq. 12 and 16."""
        alpha, sigma = self.sde.alpha(to), self.sde.sigma(to)
        ratio = self.sde.alpha(t) / alpha
        spread = self.eta * sigma / self.sde.sigma(t) * math.sqrt(1 - ratio**2)
        z = alpha * start + math.sqrt(sigma**2 - spread**2) * eps
        return z if noise is None else z + spread * noise

    def _dpm_solver(self, at: Trajectory, start: Tensor, t: float, to: float) -> Trajectory:
        """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2); its first step is of first order."""
        now, then = self.sde.half_log_snr(t), self.sde.half_log_snr(to)
        direction = start
        if at.start is not None:
            direction = start + (start - at.start) * (0.5 * (then - now) / (now - at.half_log_snr))
        z = self.sde.sigma(to) / self.sde.sigma(t) * at.z - self.sde.alpha(to) * math.expm1(now - then) * direction
        return Trajectory(z, start, now)


def sample(model: Model, z: Tensor, times: list[float], solver: Solver, noise: Noise | None = None) -> Tensor:
    """Runs a solver down `times`, whose last is 0; z has the noise level of the first."""
    at = Trajectory(z)
    for t, to in pairwise(times):
        draw = noise(*z.shape[1:]) if noise is not None and solver.draws and to > 0 else None
        at = solver.step(model, at, model(at.z, t), (t, to), draw)
    return at.z
