"""Identity guidance: the gradient that makes a noisy latent's face look more like a given person, and a guide of chains
that follows it on chosen steps, where a mask lets it.

    g = grad_{z_t} 1 - cos(phi(G(z_0(z_t))), phi(x_ref)), of unit RMS
    z_to = step(z_t) - w sigma(t) m g
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.sampling import Guide, Model, Step

Embed = Callable[[Tensor], Tensor]
"""A predicted z_0, (B, C, h, w), to its face's embedding, (B, d) of unit length."""

PEAK = 4.0
"""Where a gradient of unit RMS is cut: all of it may lie in one place."""


class Guidance:
    """Steps down the identity gradient after the sampler's own steps. For one chain."""

    def __init__(
        self, model: Model, embed: Embed, target: Tensor, mask: Tensor, strength: float, times: frozenset[float]
    ) -> None:
        """`target` is phi(x_ref), (B, d); `mask` is m, (B, 1 or C, h, w) in [0, 1]; `strength` is w; `times` are those
        of the guided steps."""
        self.mask = mask
        self._model, self._embed, self._target = model, embed, target
        self._strength, self._times = strength, times
        self._gradient: Tensor | None = None  # of the step under way, where it is guided

    def predict(self, x: Tensor, level: Level) -> Tensor:
        self._gradient = None
        if level.t not in self._times:
            return self._model(x, level.t)
        eps, self._gradient = identity_gradient(self._model, self._embed, x, level, self._target)
        return eps

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        if self._gradient is None:
            return x
        return x - self._strength * step.now.sigma * self.mask * self._gradient


def keep_unmasked(guidance: Guidance) -> Guide:
    """The same guidance, but where its mask is 0 the chain is the unguided one to the bit, at every step."""
    return _KeepUnmasked(guidance) if bool((guidance.mask == 0).any()) else guidance


class _KeepUnmasked:
    """The network sees moved latents next to a shut place, which would change it too: so from the first guided step on
    the unguided chain runs along, and its latents are put there."""

    def __init__(self, guidance: Guidance) -> None:
        self._guidance, self._shut = guidance, guidance.mask == 0
        self._twin: tuple[Tensor, tuple[Level, Tensor] | None] | None = None  # x and `previous` of the unguided chain

    def predict(self, x: Tensor, level: Level) -> Tensor:
        return self._guidance.predict(x, level)

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        guided = self._guidance.after_step(step, x)
        if self._twin is None and guided is x:
            return x  # not guided yet: the two chains are one
        start, previous = self._twin or (step.x, step.previous)
        twin = replace(step, x=start, previous=previous, output=step.model(start, step.now.t))
        self._twin = twin.take(), (twin.now, twin.x_0)
        return torch.where(self._shut, self._twin[0], guided)


def identity_gradient(model: Model, embed: Embed, z: Tensor, level: Level, target: Tensor) -> tuple[Tensor, Tensor]:
    """eps at z_t, and g, cut at `PEAK`. A gradient's own length varies by 10^3 with t, hence the unit RMS of each face.
    Goes back through the model, whether or not the caller takes gradients."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        eps = model(z, level.t)
        distance = 1 - (embed(level.predict_start(z, eps)) * target).sum(dim=1)
        (gradient,) = torch.autograd.grad(distance.sum(), z)
    return eps.detach(), unit_rms(gradient).clamp(-PEAK, PEAK)


def unit_rms(x: Tensor) -> Tensor:
    """Each row over its own root mean square; a row of zeros stays one."""
    return x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
