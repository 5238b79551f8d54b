"""The variational bound of a reverse chain, and what starting it from an image costs and saves (DiffBFR).

    -log p(x_0 | y) <= KL_start + SUM_t KL_t + E[-log p(x_0 | x_1)]
    KL_start = KL[ q(x_N | x_0) || p(x_N | y) ] = kappa_N ||x_0 - y||^2 / 2            kappa_t = abar_t / (1 - abar_t)
    KL_t     = KL[ q(x_s | x_t, x_0) || p_theta(x_s | x_t) ] = (kappa_s - kappa_t) ||x_0 - x_0^||^2 / 2,    s before t

p_theta has the posterior's variance, and x_0^, predicted from x_t, in place of x_0. A chain from pure noise starts
from the image 0 at the last timestep, where kappa is almost 0. The last term is the same for all chains.

So a chain truncated at N has the tighter bound exactly where kappa_N ||x_0 - y||^2 / 2 is below the cost of the steps
above N. It saves a model's errors there; an exact conditional model gains nothing, however many its steps, because each
x_0^ is at least as good as E[x_0 | y], which is at least as good as y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bfr_models.diffusion.sampling import Model, Noise
from bfr_models.diffusion.schedule import abars_at, add_noise, contraction


@dataclass(frozen=True)
class Divergences:
    """The terms of one chain's bound in nats, for each image."""

    start: Tensor  # (B,)
    steps: Tensor  # (B, n - 1), from the first step down

    @property
    def total(self) -> Tensor:
        """(B,); without the last term, -log p(x_0 | x_1)."""
        return self.start + self.steps.sum(dim=1)


def start_divergence(x_start: Tensor, image: Tensor, abar: float) -> Tensor:
    """(B,) KL[ q(x_N | x_0) || p(x_N | y) ] of a chain that starts from `image`."""
    return contraction(abar) / 2 * (x_start - image).square().flatten(1).sum(1)


def chain_divergences(
    model: Model,
    x_start: Tensor,
    image: Tensor,
    timesteps: Sequence[float],
    alphas_cumprod: Tensor,
    noise: Noise,
) -> Divergences:
    """The terms for images x_0, (B, C, H, W), of the chain over `timesteps` (descending) from the noised `image`:
    one draw of each x_t, so means over images (or repetitions) estimate the bound."""
    abars = abars_at(timesteps, alphas_cumprod).tolist()
    steps = []
    for t, (abar, abar_prev) in zip(timesteps[:-1], pairwise(abars), strict=True):
        drawn = noise(*x_start.shape[1:])
        x = add_noise(x_start, drawn, abar)
        # x_0 - x_0^ = (eps^ - eps) / sqrt(kappa)
        error = (model(x, t) - drawn).square().flatten(1).sum(1)
        steps.append((contraction(abar_prev) / contraction(abar) - 1) / 2 * error)
    terms = torch.stack(steps, dim=1) if steps else x_start.new_zeros(len(x_start), 0)
    return Divergences(start_divergence(x_start, image, abars[0]), terms)
