"""The truncated reverse chain of DifFace: the transition to x_N, and the last N steps of an unconditional prior."""

from __future__ import annotations

import torch
from torch import Tensor

from bfr_models.diffusion.sampling import XstartHook, ancestral_sample, ddim_sample, dpm_solver_sample, unedited
from bfr_models.diffusion.schedule import (
    NUM_TRAIN_TIMESTEPS,
    add_noise,
    linear_alphas_cumprod,
    respaced_timesteps,
    truncated_timesteps,
)
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.difface_presets import DifFaceOptions
from bfr_models.networks.unet import UNet
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise


def chain_timesteps(options: DifFaceOptions) -> tuple[int, list[int]]:
    """(timestep of the start noise, timesteps of the network calls, descending); see `DifFaceOptions`."""
    start, gap, steps = options.start_timestep, options.start_gap, options.steps
    if options.sampler == "ancestral":
        respaced = respaced_timesteps(round(NUM_TRAIN_TIMESTEPS * steps / start))
        return respaced[steps if gap else steps - 1], respaced[:steps][::-1]
    return start, truncated_timesteps(start - gap, steps)


class Chain:
    """p(x_N | f) and p_theta(x_0 | x_N), with the prior on its device."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self._device, self._options = device, resolved.options
        self._prior = load_component(UNet(resolved.preset.prior), resolved, "prior", device)  # type: ignore[attr-defined]
        self._alphas_cumprod = linear_alphas_cumprod()
        self._start, self._timesteps = chain_timesteps(resolved.options)

    def run(self, estimate: Tensor, noise: RowNoise, x0_hook: XstartHook = unedited) -> Tensor:
        """Diffuses f, (B, 3, H, W) in [-1, 1] on the device, to x_N and samples x_0 in [-1, 1] from there."""
        x = add_noise(estimate, noise(*estimate.shape[1:]), self._alphas_cumprod[self._start])
        return self._reverse(x, noise, x0_hook).clamp(-1, 1)

    def _reverse(self, x: Tensor, noise: RowNoise, x0_hook: XstartHook) -> Tensor:
        options, timesteps, abars = self._options, self._timesteps, self._alphas_cumprod
        if options.sampler == "ancestral":
            return ancestral_sample(self._predict_with_variance, x, timesteps, abars, noise, x0_hook)
        if options.sampler == "dpm++":
            return dpm_solver_sample(self._predict_eps, x, timesteps, abars, x0_hook)
        return ddim_sample(self._predict_eps, x, timesteps, abars, options.eta, noise, x0_hook)

    def _predict_eps(self, x: Tensor, t: int) -> Tensor:
        return self._predict(x, t)[:, :3]

    def _predict_with_variance(self, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        eps, v = self._predict(x, t).chunk(2, dim=1)
        return eps, v

    def _predict(self, x: Tensor, t: int) -> Tensor:
        with autocast(self._device, self._options.precision):
            output: Tensor = self._prior(x, torch.full((x.shape[0],), t, device=x.device))
        return output.float()
