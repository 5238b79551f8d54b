"""Samplers: each is one function from a noisy x to x_0, over given timesteps.

Notation (DDIM, arXiv 2010.02502; DPM-Solver++, arXiv 2211.01095; improved DDPM, arXiv 2102.09672):
    x_t        the sample, (B, 3, H, W)          eps        eps_theta(x_t, t), the predicted noise
    abar_t     alphas_cumprod[t]                  pred_xstart  (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)
    eta        0 = deterministic, 1 = ancestral   lambda_t   log(sqrt(abar_t) / sqrt(1 - abar_t))
    v          the predicted variance, from -1 (its lower bound) to 1 (its upper)
The last step goes to abar = 1, that is to x_0 itself. Coefficients are Python floats: a step on an accelerator copies
nothing there and waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from bfr_models.diffusion.schedule import abars_at, add_noise

EpsModel = Callable[[Tensor, int], Tensor]
"""(x_t, t) -> eps, both (B, 3, H, W)."""

FractionalEpsModel = Callable[[Tensor, float], Tensor]
"""As `EpsModel`, for timesteps that need not be whole."""

EpsVarianceModel = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(x_t, t) -> (eps, v), all (B, 3, H, W)."""

Noise = Callable[..., Tensor]
"""(*shape of one row) -> (B, *shape); see `bfr_models.rng.RowNoise`."""

XstartHook = Callable[[Tensor], Tensor]
"""Edits every predicted x_0 before it is clipped: what is known of the picture, a step down a gradient."""


def unedited(pred_xstart: Tensor) -> Tensor:
    """The hook that does nothing."""
    return pred_xstart


def predict_xstart(x: Tensor, eps: Tensor, abar: float, x0_hook: XstartHook = unedited) -> Tensor:
    """x_0 from x_t and eps, clipped to [-1, 1] (DDIM eq. 9)."""
    return x0_hook((x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)).clamp(-1, 1)


def ddim_step(
    x: Tensor,
    eps: Tensor,
    abar: float,
    abar_prev: float,
    eta: float,
    noise: Noise,
    x0_hook: XstartHook = unedited,
) -> Tensor:
    """x_t -> x_{t_prev} (DDIM eq. 12 and 16). eta scales the standard deviation; eps is not re-derived
    after the clipping of x_0, as in the authors' code."""
    pred_xstart = predict_xstart(x, eps, abar, x0_hook)
    sigma = eta * math.sqrt((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev))
    x = math.sqrt(abar_prev) * pred_xstart + math.sqrt(max(1 - abar_prev - sigma**2, 0.0)) * eps
    return x + sigma * noise(*x.shape[1:]) if sigma > 0 else x


def ddim_sample(
    model: EpsModel,
    x: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: Tensor,
    eta: float,
    noise: Noise,
    x0_hook: XstartHook = unedited,
) -> Tensor:
    """Runs DDIM down `timesteps` (descending); x has the noise level of the first."""
    for t, abar, abar_prev in _levels(timesteps, alphas_cumprod):
        x = ddim_step(x, model(x, t), abar, abar_prev, eta, noise, x0_hook)
    return x


def ancestral_step(
    x: Tensor,
    eps: Tensor,
    v: Tensor,
    abar: float,
    abar_prev: float,
    noise: Noise,
    x0_hook: XstartHook = unedited,
) -> Tensor:
    """x_t ~ q(x_{t_prev} | x_t, x_0) (DDPM eq. 7) with the learned variance, between the posterior's beta~ and beta:
    log sigma^2 = (1 + v) / 2 log beta + (1 - v) / 2 log beta~ (improved DDPM eq. 15). The last step draws nothing."""
    pred_xstart = predict_xstart(x, eps, abar, x0_hook)
    if abar_prev == 1.0:
        return pred_xstart
    beta = 1 - abar / abar_prev
    coef_start, coef_x = math.sqrt(abar_prev) * beta / (1 - abar), math.sqrt(1 - beta) * (1 - abar_prev) / (1 - abar)
    upper, lower = math.log(beta), math.log(beta * (1 - abar_prev) / (1 - abar))
    log_variance = (upper - lower) / 2 * v + (upper + lower) / 2
    return coef_start * pred_xstart + coef_x * x + torch.exp(0.5 * log_variance) * noise(*x.shape[1:])


def ancestral_sample(
    model: EpsVarianceModel,
    x: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: Tensor,
    noise: Noise,
    x0_hook: XstartHook = unedited,
) -> Tensor:
    """Runs DDPM down `timesteps` (descending) with learned variances."""
    for t, abar, abar_prev in _levels(timesteps, alphas_cumprod):
        eps, v = model(x, t)
        x = ancestral_step(x, eps, v, abar, abar_prev, noise, x0_hook)
    return x


def dpm_solver_sample(
    model: EpsModel,
    x: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: Tensor,
    x0_hook: XstartHook = unedited,
) -> Tensor:
    """DPM-Solver++(2M): second order, deterministic, for 5 to 20 steps (algorithm 2 of the paper).

    First and last steps are first order: the first has no history, the last lands on x_0.
    """
    previous: Tensor | None = None
    step_before = 0.0  # h of the step before, in lambda
    for t, abar, abar_next in _levels(timesteps, alphas_cumprod):
        pred_xstart = predict_xstart(x, model(x, t), abar, x0_hook)
        if abar_next == 1.0:
            return pred_xstart
        h = _half_log_snr(abar_next) - _half_log_snr(abar)
        direction = pred_xstart
        if previous is not None:
            direction = pred_xstart + (pred_xstart - previous) * (0.5 * h / step_before)
        x = (math.sqrt(1 - abar_next) / math.sqrt(1 - abar)) * x - math.sqrt(abar_next) * math.expm1(-h) * direction
        previous, step_before = pred_xstart, h
    raise ValueError("expected at least one timestep, got none")


def truncated_sample(
    model: FractionalEpsModel,
    picture: Tensor,
    timesteps: Sequence[float],
    alphas_cumprod: Tensor,
    noise: Noise,
    eta: float | None = None,
) -> Tensor:
    """x_0 of a chain that starts at x_N = sqrt(abar_N) picture + sqrt(1 - abar_N) noise, N the first of `timesteps`
    (descending, need not be whole): by DDIM, or by DPM-Solver++ where `eta` is None."""
    ascending = timesteps[::-1]
    abars, indices = abars_at(ascending, alphas_cumprod), range(len(ascending) - 1, -1, -1)
    x = add_noise(picture, noise(*picture.shape[1:]), abars[-1])

    def indexed(x: Tensor, index: int) -> Tensor:
        return model(x, ascending[index])

    if eta is None:
        return dpm_solver_sample(indexed, x, indices, abars)
    return ddim_sample(indexed, x, indices, abars, eta, noise)


def _levels(timesteps: Sequence[int], alphas_cumprod: Tensor) -> Iterator[tuple[int, float, float]]:
    """(t, abar_t, abar of the next timestep) down the chain; after the last comes 1."""
    abars = [*(float(alphas_cumprod[t]) for t in timesteps), 1.0]
    return ((t, *levels) for t, levels in zip(timesteps, pairwise(abars), strict=True))


def _half_log_snr(abar: float) -> float:
    return 0.5 * math.log(abar / (1 - abar))


def as_eps_model(network: torch.nn.Module) -> EpsModel:
    """A network of (x, (B,) timesteps) as a function of (x, t)."""
    return lambda x, t: network(x, torch.full((x.shape[0],), t, device=x.device, dtype=torch.long))


def as_fractional_eps_model(network: torch.nn.Module, condition: Tensor | None = None) -> FractionalEpsModel:
    """The same for timesteps that need not be whole; with the channels of `condition`, (B, C, H, W), after those of x,
    and without those of a learned variance."""

    def eps(x: Tensor, t: float) -> Tensor:
        given = x if condition is None else torch.cat([x, condition], dim=1)
        output: Tensor = network(given, torch.full((len(x),), t, device=x.device, dtype=torch.float32))
        return output[:, : x.shape[1]].float()

    return eps
