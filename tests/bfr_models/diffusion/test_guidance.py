"""Identity guidance on a toy whose decoder and recogniser are linear: which way it moves, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.diffusion.guidance import PEAK, Guidance, identity_gradient, keep_unmasked, unit_rms
from bfr_models.diffusion.sampling import get_sampler, sample
from bfr_models.diffusion.sde import VPSDE
from bfr_models.diffusion.times import times_from
from bfr_models.rng import RowNoise

SDE = VPSDE()
SHAPE = (3, 6, 6)
SAMPLERS = [("euler-maruyama", 0.0), ("heun", 0.0), ("ddim", 0.0), ("ddim", 0.7), ("dpm++", 0.0)]
TIMES = times_from(0.5, 8)
GUIDED = frozenset(TIMES[2:7:2])
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s[0]}-{s[1]}")


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PROJECTION = randn(math.prod(SHAPE), 5, seed=1)
MIXING = randn(3, 3, 3, 3, seed=2) / 6


def model(z: Tensor, t: float) -> Tensor:
    """A score that looks at a neighbourhood, so that a change spreads."""
    return SDE.sigma(t) * (0.8 * z + 0.2 * F.conv2d(z, MIXING, padding=1).tanh())


def embed(start: Tensor) -> Tensor:
    return F.normalize(start.flatten(1) @ PROJECTION, dim=1)


def guided(
    z: Tensor, mask: Tensor, sampler: tuple[str, float], target: Tensor, times: frozenset[float] = GUIDED
) -> Tensor:
    guide = keep_unmasked(Guidance(model, embed, target, mask, 0.2, times))
    return sample(model, z, SDE.levels(TIMES), get_sampler(*sampler), RowNoise(range(len(z))), guide=guide)


def unguided(z: Tensor, sampler: tuple[str, float]) -> Tensor:
    return sample(model, z, SDE.levels(TIMES), get_sampler(*sampler), RowNoise(range(len(z))))


Z, TARGET = randn(2, *SHAPE, seed=3), F.normalize(randn(2, 5, seed=4), dim=1)


@every_sampler
def test_where_the_mask_is_0_the_trajectory_is_the_unguided_one_to_the_bit(sampler: tuple[str, float]) -> None:
    """Although the network sees, next to such a place, latents that were moved."""
    mask = torch.zeros(2, 1, 6, 6)
    mask[0, :, 1:3, 2:5], mask[1, :, 4:, :] = 1.0, 0.3
    found, plain = guided(Z, mask, sampler, TARGET), unguided(Z, sampler)
    shut = (mask == 0).expand_as(Z)
    assert torch.equal(found[shut], plain[shut])
    assert (found[~shut] != plain[~shut]).all()


@every_sampler
def test_a_shut_mask_or_no_guided_time_is_no_guidance(sampler: tuple[str, float]) -> None:
    assert torch.equal(guided(Z, torch.zeros(2, 1, 6, 6), sampler, TARGET), unguided(Z, sampler))
    assert torch.equal(guided(Z, torch.ones(2, 1, 6, 6), sampler, TARGET, frozenset()), unguided(Z, sampler))


@every_sampler
def test_guidance_brings_the_face_nearer_to_its_target(sampler: tuple[str, float]) -> None:
    before, after = (
        1 - (embed(z) * TARGET).sum(1)
        for z in (unguided(Z, sampler), guided(Z, torch.ones(2, 1, 6, 6), sampler, TARGET))
    )
    assert (after < before - 0.01).all()


@every_sampler
def test_each_face_is_guided_by_itself(sampler: tuple[str, float]) -> None:
    together = guided(Z, torch.ones(2, 1, 6, 6), sampler, TARGET)
    alone = guided(Z[:1], torch.ones(1, 1, 6, 6), sampler, TARGET[:1])
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)  # sums of float32 in another order


def test_the_gradient_is_that_of_the_identity_distance() -> None:
    """Against central differences in float64, up to its length: its RMS is 1 for each face."""
    z, target, h, t = Z.double(), TARGET.double(), 1e-6, 0.2

    def eps(z: Tensor, t: float) -> Tensor:
        return 0.3 * z.tanh()

    def distance(z: Tensor) -> Tensor:
        start = SDE.level(t).predict_start(z, eps(z, t))
        return 1 - (F.normalize(start.flatten(1) @ PROJECTION.double(), dim=1) * target).sum(1)

    _, found = identity_gradient(
        eps, lambda s: F.normalize(s.flatten(1) @ PROJECTION.double(), dim=1), z, SDE.level(t), target
    )
    directions = randn(10, *SHAPE, seed=5).double()
    slopes = torch.stack([(distance(z + h * d) - distance(z - h * d)) / (2 * h) for d in directions])
    along = torch.einsum("bchw,dchw->db", found, directions)
    torch.testing.assert_close(slopes / slopes.norm(dim=0), along / along.norm(dim=0), rtol=0, atol=1e-6)
    assert found.square().mean((1, 2, 3)).tolist() == pytest.approx([1, 1])


def test_the_gradient_is_taken_where_the_caller_takes_none() -> None:
    with torch.no_grad():
        eps, gradient = identity_gradient(model, embed, Z, SDE.level(0.2), TARGET)
    assert not eps.requires_grad and not gradient.requires_grad
    torch.testing.assert_close(eps, model(Z, 0.2))


def test_unit_rms_leaves_zeros_and_the_peaks_are_cut() -> None:
    x = torch.stack([torch.zeros(SHAPE), 7 * torch.ones(SHAPE)])
    assert unit_rms(x)[0].abs().max() == 0
    torch.testing.assert_close(unit_rms(x)[1], torch.ones(SHAPE))

    def spike(start: Tensor) -> Tensor:
        """Sees one place alone: all of the gradient is there, with an RMS of 1 a peak of sqrt(108)."""
        return F.normalize(torch.stack([start[:, 0, 2, 2], torch.ones(len(start))], dim=1), dim=1)

    target = F.normalize(torch.tensor([[5.0, 1.0], [-5.0, 1.0]]), dim=1)
    _, gradient = identity_gradient(lambda z, t: torch.zeros_like(z), spike, Z, SDE.level(0.2), target)
    assert gradient.abs().amax((1, 2, 3)).tolist() == [PEAK, PEAK]
