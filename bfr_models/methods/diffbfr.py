"""DiffBFR (arXiv 2305.04517): blind face restoration by two conditional diffusion models, then an unconditional one.

    x_N = sqrt(abar_N) y + sqrt(1 - abar_N) eps          the truncated start of every chain
    p_theta(x_{t-1} | x_t, c), t = N..1                  the rest of it

    identity restoration, low     y = face at the first model's size, c = lq there  N = options.start_low
    identity restoration, high    y = face as the first corrects it, c = y and lq   N = options.start_high
    (or a rectified flow          y = face as the first corrects it, no c)
    texture enhancement           y = the second's output, no c                     N = options.texture_timestep

A chain that starts from y instead of pure noise keeps the identity that y still carries; the noise must be just enough
to hide what is wrong with y (`bfr_models.diffusion.bound`). Less is wrong at a small size, and less in the first
model's output, so each stage needs less noise than the one before. The texture model was trained on clean faces only,
and moves the face towards them as far as its few steps allow.

The face is lq itself (`options.start` "lq", the paper's), or a regression network's estimate of it ("estimate", ours):
less is wrong with that, so that less noise is enough. In place of the second chain a rectified flow can carry it on
(`options.second` "flow", ours; `bfr_models.diffusion.flow`).

The paper's abstract gives the cascade of two sizes, the condition, the truncated starts, the fractional time step and
the unconditional model. Sizes, networks and numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bfr_models.diffusion.flow import flow
from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.own_start import own_chains
from bfr_models.diffusion.sampling import as_model, get_sampler, truncated_sample, truncated_sample_each
from bfr_models.diffusion.schedule import (
    fractional_timesteps,
    levels_at,
    linear_alphas_cumprod,
    truncated_timesteps,
)
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.diffbfr_presets import DiffBFROptions, DiffBFRPreset
from bfr_models.methods.estimator import Estimator
from bfr_models.networks.unet import UNet
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.types import FaceBatch


def corrected(face: Tensor, small: Tensor) -> Tensor:
    """(B, 3, H, W) faces corrected by `small`, the same faces restored at a smaller size, in [-1, 1]:
    face + up(small - down(face)). Detail that the small size cannot hold stays as it is."""
    return (face + resize(small - resize(face, small.shape[-1]).clamp(-1, 1), face.shape[-1])).clamp(-1, 1)


class DiffBFR:
    """The three stages in a row; a stage that is switched off is not loaded."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        preset, options = resolved.preset, resolved.options
        assert isinstance(preset, DiffBFRPreset) and isinstance(options, DiffBFROptions)
        self.size = preset.size
        self._device, self._options, self._low_size = device, options, preset.irm_low.sample_size
        self._last_timestep = preset.low_max_timestep
        self._alphas_cumprod = linear_alphas_cumprod()
        self._sampler = get_sampler(options.sampler, options.eta)

        def load(component: str) -> nn.Module:
            config = preset.prior if component == "tem" else getattr(preset, component)
            return load_component(UNet(config), resolved, component, device)

        self._estimator = Estimator(resolved, device) if options.start == "estimate" else None
        self._irm_low = load("irm_low") if options.cascade else None
        self._second = load("flow" if options.second == "flow" else "irm_high")
        self._tem = load("tem") if options.texture else None

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size); every draw comes from the face's own seed."""
        options, noise = self._options, RowNoise(batch.seeds, self._device)
        lq = resize(batch.images.to(self._device), self.size).clamp(-1, 1).to(memory_format=torch.channels_last)
        face = lq if self._estimator is None else self._estimator.estimate(lq)
        if self._irm_low is not None:
            face = self._restore_low(self._irm_low, face, lq, noise)
        face = self._flow(face, noise) if options.second == "flow" else self._restore_high(face, lq, noise)
        if self._tem is not None:
            timesteps = fractional_timesteps(options.texture_timestep, options.steps_texture)
            face = self._run(self._tem, face, self._levels(timesteps), noise)
        return batch.with_images(face.cpu())

    def _restore_low(self, network: nn.Module, face: Tensor, lq: Tensor, noise: RowNoise) -> Tensor:
        """The face, corrected by the first model."""
        options = self._options
        image, small = (resize(images, self._low_size).clamp(-1, 1) for images in (face, lq))
        start = options.start_low if options.truncated else self._last_timestep
        if not options.truncated:
            image = torch.zeros_like(image)  # from pure noise, for the ablation
        levels = self._levels(truncated_timesteps(start, options.steps))
        return corrected(face, self._run(network, image, levels, noise, condition=small))

    def _restore_high(self, face: Tensor, lq: Tensor, noise: RowNoise) -> Tensor:
        """The first model's face, restored by the second."""
        options, highest, steps = self._options, self._options.start_high, self._options.steps_high
        condition = torch.cat([face, lq], dim=1)
        if not options.cover:
            levels = self._levels(truncated_timesteps(highest, steps))
            return self._run(self._second, face, levels, noise, condition)
        chains = own_chains(lq, face, options.cover, highest, steps, self._alphas_cumprod)
        with autocast(self._device, options.precision):
            return truncated_sample_each(as_model(self._second, condition), face, chains, self._sampler, noise)

    def _flow(self, face: Tensor, noise: RowNoise) -> Tensor:
        """The first model's face, carried `flow_share` of the way to a natural one."""
        options = self._options
        with autocast(self._device, options.precision):
            natural = flow(as_model(self._second), face, options.steps_flow, noise)
        return torch.lerp(face, natural, options.flow_share)

    def _levels(self, timesteps: Sequence[float]) -> list[Level]:
        return levels_at(timesteps, self._alphas_cumprod)

    def _run(
        self, network: nn.Module, image: Tensor, levels: list[Level], noise: RowNoise, condition: Tensor | None = None
    ) -> Tensor:
        """One chain from a noised `image`, in [-1, 1] as its result is."""
        with autocast(self._device, self._options.precision):
            return truncated_sample(as_model(network, condition), image, levels, self._sampler, noise)
