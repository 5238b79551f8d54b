"""Starts of a face's own: the noise that a first network's change calls for."""

from __future__ import annotations

import math

import pytest
import torch

from bfr_models.diffusion.own_start import coarse_change, own_chains, timestep_of
from bfr_models.diffusion.schedule import abars_at, linear_alphas_cumprod

ABARS = linear_alphas_cumprod()


@pytest.mark.parametrize("t", [0.0, 7.25, 20.0, 399.5, 999.0])
def test_a_timestep_is_found_again_by_its_noise(t: float) -> None:
    abar = float(abars_at([t], ABARS)[0])
    assert timestep_of(math.sqrt((1 - abar) / abar), ABARS) == pytest.approx(t, abs=1e-9)


def test_noise_beyond_the_schedule_gives_its_ends() -> None:
    assert timestep_of(0.0, ABARS) == 0
    assert timestep_of(1e9, ABARS) == 999


def test_grain_is_no_change_and_a_shift_of_a_part_is() -> None:
    before = torch.zeros(3, 3, 128, 128)
    after = before.clone()
    after[1, :, ::2] = 0.5
    after[1, :, 1::2] = -0.5
    after[2, :, :64] = 0.2
    assert coarse_change(before, after, 32) == pytest.approx([0, 0, 0.2 / math.sqrt(2)], abs=1e-6)


def test_each_face_starts_where_the_noise_covers_the_square_of_its_change_within_the_bounds() -> None:
    before = torch.zeros(4, 3, 128, 128)
    after = before + torch.tensor([0.0, 0.05, 0.1, 0.9]).view(-1, 1, 1, 1)
    chains = own_chains(before, after, cover=2.0, highest=100, steps=4, alphas_cumprod=ABARS)
    starts = [chain[0] for chain in chains]
    assert starts[0].t == 3  # four calls need as many timesteps
    assert [start.sigma / start.alpha for start in starts[1:3]] == pytest.approx([0.05, 0.2], rel=1e-6)
    assert starts[3].t == 100
    assert all(len(chain) == 5 and chain[-2].t == 0 and chain[-1].sigma == 0 for chain in chains)
