"""Where a face's own chain starts: at the noise that a first network's change of the face calls for.

    sigma / alpha = cover * c^2 / TYPICAL,    c = rms(pool(f(y) - y))        pool: the mean over squares of COARSE px

The more of a face was lost, the more f changes in it, and the more of that is a guess: hence the square, by which a
face that needed little repair keeps nearly all of its detail. (In proportion to c, held-out faces of mild damage came
out further from the clean ones, by features and by a recogniser, and others no nearer.) Pooled, the change says nothing
of grain that was taken away; at 128 px in 32 places it foretells the error of our regression network: half of it, as a
rule, from clean faces to severely degraded ones, with a correlation of 0.93 between the logarithms. This is ours.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.schedule import abars_at, fractional_timesteps, levels_at

COARSE = 4
"""Side in px of the squares that the change of an image is pooled over."""

TYPICAL = 0.1
"""The change that calls for noise `cover` times as large: 13 of 255 grey levels, as of a face severely degraded."""


def own_chains(
    before: Tensor, after: Tensor, cover: float, highest: float, steps: int, alphas_cumprod: Tensor
) -> list[list[Level]]:
    """The levels of each image's chain, of `steps` network calls from at most the timestep `highest`: from the noise
    that the change from `before` to `after`, (B, 3, S, S) each, calls for."""
    changes = coarse_change(before, after, after.shape[-1] // COARSE)
    noises = [cover * change**2 / TYPICAL for change in changes]
    starts = [min(max(timestep_of(noise, alphas_cumprod), steps - 1), highest) for noise in noises]
    return [levels_at(fractional_timesteps(start, steps), alphas_cumprod) for start in starts]


def coarse_change(before: Tensor, after: Tensor, places: int) -> list[float]:
    """rms of the pooled difference of each pair, (B, C, H, W)."""
    change = F.adaptive_avg_pool2d((after - before).double(), places)
    rms: list[float] = change.square().mean(dim=(1, 2, 3)).sqrt().tolist()
    return rms


def timestep_of(noise: float, alphas_cumprod: Tensor) -> float:
    """The timestep, which need not be whole, at which sigma / alpha is `noise`; 0 and the last one bound it."""
    wanted = -math.log1p(noise**2)  # log abar
    above = int((alphas_cumprod.log() > wanted).sum())
    if above in (0, len(alphas_cumprod)):
        return float(max(above - 1, 0))
    before, after = abars_at([above - 1, above], alphas_cumprod).log().tolist()
    return above - 1 + (before - wanted) / (before - after)
