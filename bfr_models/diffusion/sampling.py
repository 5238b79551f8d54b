"""Samplers: each is one function from a step's facts to the sample one level down; `sample` walks the levels.

Notation (DDIM, arXiv 2010.02502; DPM-Solver++, arXiv 2211.01095; improved DDPM, arXiv 2102.09672; score SDE, arXiv
2011.13456):
    x        x_t, the sample at level `now`           eps    eps_theta(x_t, t), the predicted noise
    x_0      (x_t - sigma eps) / alpha, then edited   v      the predicted variance, from -1 (lower bound) to 1 (upper)
    now, to  the levels of t and of the next t        eta    0 = deterministic, 1 = ancestral
A schedule decides the levels (`bfr_models.diffusion.levels`) and a sampler what happens between two of them; any
sampler runs over any levels, except that Euler's two need the SDE's beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from bfr_models.diffusion.levels import Level

Model = Callable[[Tensor, float], Tensor]
"""(x_t, t) -> eps, both (B, C, H, W). A learned variance v follows eps on the channels, (B, 2 C, H, W) in all."""

RowModel = Callable[[Tensor, float | Sequence[float]], Tensor]
"""A `Model` that also takes a t for each row."""

Noise = Callable[..., Tensor]
"""(*shape of one row) -> (B, *shape); see `bfr_models.rng.RowNoise`."""

XstartHook = Callable[[Tensor], Tensor]
"""Edits every predicted x_0 before it is used: clipping, known pixels put back, a step down a gradient."""


def unedited(x_0: Tensor) -> Tensor:
    """The hook that does nothing."""
    return x_0


def clipped(hook: XstartHook = unedited) -> XstartHook:
    """`hook`, then clipping to [-1, 1]: for models of images, whose range is known."""
    return lambda x_0: hook(x_0).clamp(-1, 1)


@dataclass(frozen=True)
class Step:
    """One step down a chain: all that a sampler may use for it."""

    sampler: Sampler
    model: Model
    now: Level
    to: Level
    x: Tensor
    output: Tensor  # the model's at x
    noise: Tensor | None = None  # standard normal, where the sampler draws
    edit: XstartHook = unedited
    previous: tuple[Level, Tensor] | None = None  # the level above `now`, and the x_0 that was predicted there

    @property
    def eps(self) -> Tensor:
        return self.output[:, : self.x.shape[1]]

    @property
    def v(self) -> Tensor:
        return self.output[:, self.x.shape[1] :]

    @cached_property
    def x_0(self) -> Tensor:
        return self.edit(self.now.predict_start(self.x, self.eps))

    def take(self) -> Tensor:
        """The sample at level `to`. The last step gives x_0 with any sampler: lambda has a pole where sigma is 0."""
        return self.x_0 if self.to.sigma == 0 else self.sampler.equation(self)


@dataclass(frozen=True)
class Sampler:
    """The equation of a step, and whether it takes noise."""

    equation: Callable[[Step], Tensor]
    draws: bool = False


class Guide(Protocol):
    """What steers a chain from outside its sampler; see `bfr_models.diffusion.guidance`."""

    def predict(self, x: Tensor, level: Level) -> Tensor:
        """The model's output at x, in place of a call of the model: a gradient needs the same pass."""
        ...

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """The sample at `step.to`, changed."""
        ...


def sample(
    model: Model,
    x: Tensor,
    levels: Sequence[Level],
    sampler: Sampler,
    noise: Noise,
    edit: XstartHook = unedited,
    guide: Guide | None = None,
) -> Tensor:
    """x_0 from x, which has the noise of the first level; the last level is `CLEAN`."""
    previous = None
    for now, to in pairwise(levels):
        output = model(x, now.t) if guide is None else guide.predict(x, now)
        # Drawn after the call, so that an accelerator computes meanwhile.
        draw = noise(*x.shape[1:]) if sampler.draws and to.sigma > 0 else None
        step = Step(sampler, model, now, to, x, output, draw, edit, previous)
        x, previous = step.take(), (now, step.x_0)
        if guide is not None:
            x = guide.after_step(step, x)
    return x


def truncated_sample(model: Model, image: Tensor, levels: Sequence[Level], sampler: Sampler, noise: Noise) -> Tensor:
    """x_0, clipped, of a chain that starts from a noised image: x_N = alpha_N image + sigma_N noise."""
    x = levels[0].diffuse(image, noise(*image.shape[1:]))
    return sample(model, x, levels, sampler, noise, clipped())


def truncated_sample_each(
    model: RowModel, images: Tensor, chains: Sequence[Sequence[Level]], sampler: Sampler, noise: Noise
) -> Tensor:
    """As `truncated_sample`, each image down levels of its own; all chains have as many."""
    own = [slice(row, row + 1) for row in range(len(chains))]
    drawn = noise(*images.shape[1:])
    x = torch.cat([chain[0].diffuse(images[row], drawn[row]) for row, chain in zip(own, chains, strict=True)])
    previous: list[tuple[Level, Tensor] | None] = [None] * len(chains)
    for pairs in zip(*map(pairwise, chains), strict=True):
        output = model(x, [now.t for now, _ in pairs])
        draws = noise(*x.shape[1:]) if sampler.draws and pairs[0][1].sigma > 0 else None
        steps = [
            Step(sampler, model, now, to, x[row], output[row], None if draws is None else draws[row], clipped(), before)
            for row, (now, to), before in zip(own, pairs, previous, strict=True)
        ]
        x = torch.cat([step.take() for step in steps])
        previous = [(step.now, step.x_0) for step in steps]
    return x


def ddim(step: Step, eta: float = 0.0) -> Tensor:
    """DDIM eq. 12 and 16. eps is not derived again from an edited x_0, as in the authors' code."""
    now, to = step.now, step.to
    spread = eta * to.sigma / now.sigma * math.sqrt(1 - (now.alpha / to.alpha) ** 2)
    # max: rounding must not reach below 0 where nearly all of sigma is fresh noise (eta 1, a long step).
    x = to.alpha * step.x_0 + math.sqrt(max(to.sigma**2 - spread**2, 0.0)) * step.eps
    return x if step.noise is None else x + spread * step.noise


def dpm_solver_2m(step: Step) -> Tensor:
    """DPM-Solver++(2M), algorithm 2: second order, deterministic, for 5 to 20 steps.

    The first step is of first order, because it has no history, and so is the last, which lands on x_0.
    """
    now, to = step.now, step.to
    h = to.half_log_snr - now.half_log_snr
    direction = step.x_0
    if step.previous is not None:
        level, x_0 = step.previous
        direction = step.x_0 + (step.x_0 - x_0) * (0.5 * h / (now.half_log_snr - level.half_log_snr))
    return to.sigma / now.sigma * step.x - to.alpha * math.expm1(-h) * direction


def ancestral(step: Step) -> Tensor:
    """x ~ q(x_to | x_now, x_0) (DDPM eq. 7) with the learned variance, between the posterior's beta~ and beta:
    log variance = (1 + v) / 2 log beta + (1 - v) / 2 log beta~ (improved DDPM eq. 15)."""
    now, to = step.now, step.to
    ratio = now.alpha / to.alpha
    beta, kept = 1 - ratio**2, (to.sigma / now.sigma) ** 2
    upper, lower = math.log(beta), math.log(beta * kept)
    log_variance = (upper - lower) / 2 * step.v + (upper + lower) / 2
    mean = to.alpha * beta / now.sigma**2 * step.x_0 + ratio * kept * step.x
    assert step.noise is not None
    return mean + torch.exp(0.5 * log_variance) * step.noise


def euler_maruyama(step: Step) -> Tensor:
    """Euler's step down the reverse SDE."""
    now, h = step.now, step.now.t - step.to.t
    assert step.noise is not None
    drift = (h * now.beta) * (step.x / 2 - step.eps / now.sigma)
    return step.x + drift + math.sqrt(h * now.beta) * step.noise


def heun(step: Step) -> Tensor:
    """The trapezoidal rule on the reverse ODE, with Euler's step as its other end."""
    now, to = step.now, step.to
    # The one sampler that calls the model a second time: at the guess.
    slope = _slope(now, step.x, step.eps)
    guess = step.x + (to.t - now.t) * slope
    return step.x + (to.t - now.t) / 2 * (slope + _slope(to, guess, step.model(guess, to.t)))


def _slope(level: Level, x: Tensor, eps: Tensor) -> Tensor:
    """dx / dt of the reverse ODE."""
    return level.beta / 2 * (eps / level.sigma - x)


def get_sampler(name: str, eta: float = 0.0) -> Sampler:
    """The sampler of an option's name; `eta` is of ddim alone."""
    return {
        "ddim": Sampler(partial(ddim, eta=eta), draws=eta > 0),
        "dpm++": Sampler(dpm_solver_2m),
        "ancestral": Sampler(ancestral, draws=True),
        "heun": Sampler(heun),
        "euler-maruyama": Sampler(euler_maruyama, draws=True),
    }[name]


def as_model(network: torch.nn.Module, condition: Tensor | None = None) -> RowModel:
    """A network of (x, (B,) timesteps) as a function of (x, t), in float32; with the channels of `condition`,
    (B, C, H, W), after those of x."""

    def model(x: Tensor, t: float | Sequence[float]) -> Tensor:
        given = x if condition is None else torch.cat([x, condition], dim=1)
        times = (
            torch.tensor(t, dtype=torch.float32, device=x.device)
            if isinstance(t, Sequence)
            else x.new_full((len(x),), t)
        )
        output: Tensor = network(given, times)
        return output.float()  # the samplers add in float32, whatever the network's precision

    return model
