"""The noise schedule against its definition, diffusers, and the divergence that DifFace's argument rests on."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from bfr_models.diffusion.schedule import (
    abars_at,
    add_noise,
    contraction,
    fractional_timesteps,
    linear_alphas_cumprod,
    truncated_timesteps,
)

ABARS = linear_alphas_cumprod()


def test_alphas_cumprod_is_the_running_product_of_one_minus_beta() -> None:
    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(linear_alphas_cumprod().numpy(), expected, rtol=1e-13)  # 1000 roundings of 1e-16


def test_alphas_cumprod_is_that_of_diffusers() -> None:
    """diffusers multiplies in float32: up to two roundings of 2^-24 for each factor up to t."""
    theirs = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod.double()
    roundings = 2 * torch.arange(1, 1001)
    assert ((linear_alphas_cumprod() / theirs - 1).abs() <= roundings * 2.0**-24).all()


@given(st.data(), st.integers(1, 999))
def test_truncated_timesteps_descend_evenly_from_the_start_to_zero(data: st.DataObject, start: int) -> None:
    num_steps = data.draw(st.integers(2, start + 1))
    timesteps = truncated_timesteps(start, num_steps)
    assert (len(timesteps), timesteps[0], timesteps[-1]) == (num_steps, start, 0)
    assert all(a > b for a, b in pairwise(timesteps))
    np.testing.assert_allclose(timesteps, np.linspace(start, 0, num_steps), atol=0.5 + 1e-9)  # the nearest integers


def test_a_single_step_denoises_where_it_was_noised() -> None:
    assert truncated_timesteps(400, 1) == [400]


@pytest.mark.parametrize("num_steps", [0, -1, 12])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"start \+ 1 = 11, got {num_steps}"):
        truncated_timesteps(10, num_steps)


def test_noised_pictures_have_the_moments_of_the_forward_process() -> None:
    """One abar per picture. A sample mean of n normals is off by sigma / sqrt(n), a variance by sqrt(2 / n)."""
    abars, n = torch.tensor([0.99, 0.5, 0.01], dtype=torch.float64), 3 * 256 * 256
    x_start = torch.tensor([0.7, -0.2, 1.0]).view(3, 1, 1, 1).expand(3, 3, 256, 256)
    noise = torch.randn(x_start.shape, generator=torch.Generator().manual_seed(0))
    x = add_noise(x_start, noise, abars.view(3, 1, 1, 1)).double().flatten(1)
    assert ((x.mean(1) - abars.sqrt() * x_start[:, 0, 0, 0]).abs() <= 5 * ((1 - abars) / n).sqrt()).all()
    assert ((x.var(1) / (1 - abars) - 1).abs() <= 5 * math.sqrt(2 / n)).all()


def test_noising_keeps_the_dtype_of_the_pictures() -> None:
    x = torch.zeros(1, 3, 2, 2)
    assert add_noise(x, torch.ones_like(x), linear_alphas_cumprod()[10]).dtype == torch.float32


@given(st.integers(0, 999), st.integers(0, 2**32))
def test_contraction_is_the_divergence_of_the_two_gaussians(t: int, seed: int) -> None:
    """KL[ N(sqrt(abar) f, 1 - abar) || N(sqrt(abar) x_0, 1 - abar) ] = kappa ||x_0 - f||^2 / 2."""
    abar = linear_alphas_cumprod()[t]
    estimate, x_start = torch.rand(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p, q = (Normal(abar.sqrt() * mean, (1 - abar).sqrt()) for mean in (estimate, x_start))
    divergence = float(kl_divergence(p, q).sum())
    squared_error = float((x_start - estimate).square().sum())
    assert contraction(float(abar)) * squared_error / 2 == pytest.approx(divergence, rel=1e-9)


class TestFractionalTimesteps:
    @given(st.integers(1, 999), st.integers(1, 50))
    def test_whole_ones_are_those_of_the_chain(self, start: int, num_steps: int) -> None:
        num_steps = min(num_steps, start + 1)
        timesteps = fractional_timesteps(start, num_steps)
        np.testing.assert_allclose(timesteps, truncated_timesteps(start, num_steps), atol=0.5 + 1e-9)
        whole = [round(t) for t in timesteps]
        assert torch.equal(abars_at(whole, ABARS), ABARS[whole])

    def test_they_need_not_be_whole(self) -> None:
        assert fractional_timesteps(22.5, 4) == [22.5, 15.0, 7.5, 0.0]
        assert fractional_timesteps(0.25, 1) == [0.25]

    @given(st.integers(0, 998), st.floats(0, 1))
    def test_between_two_whole_ones_the_logarithm_of_abar_is_linear(self, t: int, share: float) -> None:
        expected = (1 - share) * math.log(ABARS[t]) + share * math.log(ABARS[t + 1])
        # t + share rounds to a multiple of 2^-44
        assert math.log(abars_at([t + share], ABARS)) == pytest.approx(expected, abs=1e-14, rel=1e-12)

    @pytest.mark.parametrize("timesteps", [[-0.1], [10.0, 999.5], [math.nan]])
    def test_outside_the_chain_there_is_none(self, timesteps: list[float]) -> None:
        with pytest.raises(ValueError, match=r"expected timesteps in \[0, 999\]"):
            abars_at(timesteps, ABARS)

    @pytest.mark.parametrize("num_steps", [0, 24])
    def test_impossible_numbers_of_steps_are_refused(self, num_steps: int) -> None:
        with pytest.raises(ValueError, match=rf"start \+ 1 = 23.5, got {num_steps}"):
            fractional_timesteps(22.5, num_steps)
