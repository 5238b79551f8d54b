"""DifFace (arXiv 2212.06512): blind face restoration with diffused error contraction.

    p(x_0 | y_0) ~ integral of p(x_N | y_0) prod_{t=1..N} p_theta(x_{t-1} | x_t)           (eq. 4)
    p(x_N | y_0) = N( sqrt(abar_N) f(y_0), (1 - abar_N) I )                                (eq. 5)

f is a regression network; p_theta are the last N steps of an unconditional diffusion model. Diffusing
shrinks the estimator's error e = x_0 - f(y_0) to sqrt(abar_N) e, below the noise; the chain then puts the
detail back that regression averaged away.

Notation: y_0 lq, f(y_0) estimate, N options.start_timestep, eta options.eta.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from bfr_models.diffusion.own_start import own_chains
from bfr_models.diffusion.sampling import (
    Noise,
    XstartHook,
    as_model,
    clipped,
    get_sampler,
    sample,
    truncated_sample_each,
    unedited,
)
from bfr_models.diffusion.schedule import (
    NUM_TRAIN_TIMESTEPS,
    levels_at,
    linear_alphas_cumprod,
    respaced_timesteps,
    truncated_timesteps,
)
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.difface_presets import DifFaceOptions, PriorPreset
from bfr_models.methods.estimator import Estimator
from bfr_models.networks.unet import UNet
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import OneStream, RowNoise
from bfr_models.types import FaceBatch


class DifFace:
    """The estimator, the transition to x_N, and the truncated reverse chain."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._device = device
        self._estimator = Estimator(resolved, device)
        self._chain = TruncatedChain(resolved, device)

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size); what is drawn depends on the face's own seed, or place."""
        noise = self._chain.noise(batch)
        lq = self._estimator.resized(batch.images)
        estimate = self._estimator.estimate(lq)
        if self._chain.own_starts:
            return batch.with_images(self._chain.run_each(estimate, lq, noise).cpu())
        x_n = self._chain.diffuse(estimate, noise)
        return batch.with_images(self._chain.reverse(x_n, noise).cpu())


class TruncatedChain:
    """p(x_N | f) and p_theta(x_0 | x_N), with the prior on its device."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        preset, options = cast(PriorPreset, resolved.preset), cast(DifFaceOptions, resolved.options)
        start, timesteps = chain_timesteps(options)
        self._alphas_cumprod = linear_alphas_cumprod()
        self._start = levels_at([start], self._alphas_cumprod)[0]  # not the first call's level where there is a gap
        self._levels = levels_at(timesteps, self._alphas_cumprod)
        self._options = options
        self._sampler = get_sampler(options.sampler, options.eta)
        self._prior = as_model(load_component(UNet(preset.prior), resolved, "prior", device))
        self._device, self._precision = device, options.precision
        # Their code draws once for the start and once for every step, with any eta, and after the last one, too.
        self._stream = OneStream(1 + len(timesteps), device) if options.noise == "authors" else None

    @property
    def own_starts(self) -> bool:
        """Whether each face has a start of its own."""
        return self._options.cover > 0

    def run_each(self, estimate: Tensor, lq: Tensor, noise: Noise) -> Tensor:
        """x_0 in [-1, 1] of f(y_0), each face from the noise that its change of y_0 calls for; see `DifFaceOptions`."""
        options = self._options
        chains = own_chains(lq, estimate, options.cover, options.start_timestep, options.steps, self._alphas_cumprod)
        return truncated_sample_each(self._predict, estimate, chains, self._sampler, noise)

    def noise(self, batch: FaceBatch) -> Noise:
        """What is drawn for the faces of a batch."""
        if self._stream is None:
            return RowNoise(batch.seeds, self._device)
        return self._stream.noise(batch.seeds, batch.places or (0,) * len(batch))

    def diffuse(self, estimate: Tensor, noise: Noise) -> Tensor:
        """x_N of f(y_0), (B, 3, H, W) in [-1, 1] on the device (eq. 5)."""
        return self._start.diffuse(estimate, noise(*estimate.shape[1:]))

    def reverse(self, x_n: Tensor, noise: Noise, x0_hook: XstartHook = unedited) -> Tensor:
        """x_0 in [-1, 1], by the last N steps of the prior (eq. 4)."""
        return sample(self._predict, x_n, self._levels, self._sampler, noise, clipped(x0_hook))

    def _predict(self, x: Tensor, t: float | Sequence[float]) -> Tensor:
        with autocast(self._device, self._precision):
            return self._prior(x, t)


# How the authors' code spaces the chain: the paper's equations leave the timesteps open.


def chain_timesteps(options: DifFaceOptions) -> tuple[int, list[int]]:
    """(timestep of the start noise, timesteps of the network calls, descending); see `DifFaceOptions`."""
    start, gap, steps = options.start_timestep, options.start_gap, options.steps
    if options.sampler == "ancestral":
        respaced = respaced_timesteps(round(NUM_TRAIN_TIMESTEPS * steps / start))
        return respaced[steps if gap else steps - 1], respaced[:steps][::-1]
    return start, truncated_timesteps(start - gap, steps)
