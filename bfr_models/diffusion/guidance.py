"""Identity guidance: the gradient that makes a noisy latent's face look more like somebody, and a chain that follows it
on chosen steps, where a mask lets it.

    g = grad_{z_t} 1 - cos(phi(G(z_0(z_t))), phi(x_ref)), of unit RMS
    z_to = step(z_t) - w sigma(t) m g
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from bfr_models.diffusion.sampling import Noise
from bfr_models.diffusion.sde import VPSDE, Model, Solver, Trajectory

Embed = Callable[[Tensor], Tensor]
"""A predicted z_0, (B, C, h, w), to its face's embedding, (B, d) of unit length."""

PEAK = 4.0
"""Where a gradient of unit RMS is cut: it may be all in one place."""


@dataclass(frozen=True)
class Guidance:
    """How a chain is guided."""

    gradient: Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (z_t, t) -> (eps, g), as `identity_gradient`
    mask: Tensor  # m, (B, 1 or C, h, w) in [0, 1]
    strength: float  # w
    times: frozenset[float]  # of the guided steps


def guided_sample(
    model: Model, z: Tensor, times: list[float], solver: Solver, guidance: Guidance, noise: Noise
) -> Tensor:
    """As `bfr_models.diffusion.sde.sample`, guided. Where the mask is 0 the result is the unguided one to the bit, at
    every step: from the first guided step on the unguided chain runs along, and its latents stay there."""
    plain, guided = Trajectory(z), None
    untouched = guidance.mask == 0
    both = bool(untouched.any())
    for t, to in pairwise(times):
        draw = noise(*z.shape[1:]) if solver.draws and to > 0 else None
        if t in guidance.times:
            guided = guided or plain
            eps, gradient = guidance.gradient(guided.z, t)
            guided = solver.step(model, guided, eps, (t, to), draw)
            push = guidance.strength * solver.sde.sigma(t) * guidance.mask * gradient
            guided = replace(guided, z=guided.z - push)
        elif guided is not None:
            guided = solver.step(model, guided, model(guided.z, t), (t, to), draw)
        if guided is None or both:
            plain = solver.step(model, plain, model(plain.z, t), (t, to), draw)
        if guided is not None and both:
            guided = replace(guided, z=torch.where(untouched, plain.z, guided.z))
    return (guided or plain).z


def identity_gradient(
    model: Model, embed: Embed, sde: VPSDE, z: Tensor, t: float, target: Tensor
) -> tuple[Tensor, Tensor]:
    """eps at z_t, and g, cut at `PEAK`. A gradient's own length varies by 10^3 with t, hence the unit RMS of each face.
    Goes back through the model, whether or not the caller takes gradients."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        eps = model(z, t)
        distance = 1 - (embed(sde.predict_start(z, eps, t)) * target).sum(dim=1)
        (gradient,) = torch.autograd.grad(distance.sum(), z)
    return eps.detach(), unit_rms(gradient).clamp(-PEAK, PEAK)


def unit_rms(x: Tensor) -> Tensor:
    """Each row over its own root mean square; a row of zeros stays one."""
    return x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
