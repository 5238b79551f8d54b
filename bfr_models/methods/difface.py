"""DifFace (arXiv 2212.06512): blind face restoration with diffused error contraction.

    p(x_0 | y_0) ~ integral of p(x_N | y_0) prod_{t=1..N} p_theta(x_{t-1} | x_t)           (eq. 4)
    p(x_N | y_0) = N( sqrt(abar_N) f(y_0), (1 - abar_N) I )                                (eq. 5)

f is a regression network; p_theta are the last N steps of an unconditional diffusion model. Diffusing
shrinks the estimator's error e = x_0 - f(y_0) to sqrt(abar_N) e, below the noise; the chain then puts the
detail back that regression averaged away.

Notation: y_0 lq, f(y_0) estimate, N options.start_timestep, abar alphas_cumprod, eta options.eta.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bfr_models.diffusion.sampling import ddim_sample, dpm_solver_sample
from bfr_models.diffusion.schedule import add_noise, linear_alphas_cumprod, truncated_timesteps
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.estimator import Estimator
from bfr_models.networks.unet import UNet
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.types import FaceBatch


class DifFace:
    """The estimator, the transition to x_N, and the truncated reverse chain."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._device, self._options = device, resolved.options
        self._estimator = Estimator(resolved, device)
        prior = UNet(resolved.preset.prior)  # type: ignore[attr-defined]
        self._prior = load_component(prior, resolved, "prior", device)
        self._alphas_cumprod = linear_alphas_cumprod()
        self._timesteps = truncated_timesteps(self._options.start_timestep, self._options.steps)

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, size, size) in [-1, 1] -> the same; every draw comes from the face's own seed."""
        noise = RowNoise(batch.seeds, self._device)
        estimate = self._estimator.estimate(batch.images)
        x = add_noise(estimate, noise(*estimate.shape[1:]), self._alphas_cumprod[self._timesteps[0]])
        return batch.with_images(self._reverse(x, noise).clamp(-1, 1).cpu())

    def _reverse(self, x: Tensor, noise: RowNoise) -> Tensor:
        if self._options.sampler == "dpm++":
            return dpm_solver_sample(self._predict_eps, x, self._timesteps, self._alphas_cumprod)
        return ddim_sample(self._predict_eps, x, self._timesteps, self._alphas_cumprod, self._options.eta, noise)

    def _predict_eps(self, x: Tensor, t: int) -> Tensor:
        with autocast(self._device, self._options.precision):
            eps: Tensor = self._prior(x, torch.full((x.shape[0],), t, device=x.device))
        return eps.float()
