"""The bound's terms on Gaussian data, where the models that are exact, and all their divergences, are closed forms.

x_0 ~ N(0, S^2) and y = x_0 + N(0, D^2), pixel by pixel. Given y, x_0 is N(R y, V) with R = S^2 / (S^2 + D^2) and
V = R D^2. A model of mean m and variance v predicts x_0 with the error variance 1 / (1 / v + kappa_t).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from bfr_models.diffusion.bound import chain_divergences, start_divergence
from bfr_models.diffusion.schedule import abars_at, contraction, linear_alphas_cumprod

ABARS = linear_alphas_cumprod()
S, N = 0.4, 300
KAPPA_N = contraction(float(ABARS[N]))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_eps(mean: Tensor | float, variance: float) -> Callable[[Tensor, float], Tensor]:
    """E[eps | x_t] for x_0 ~ N(mean, variance)."""

    def eps(x: Tensor, t: float) -> Tensor:
        abar = float(abars_at([t], ABARS))
        return math.sqrt(1 - abar) * (x - math.sqrt(abar) * mean) / (abar * variance + 1 - abar)

    return eps


def exact_cost(timesteps: Sequence[float], variance: float) -> float:
    """Of the steps down `timesteps`, per pixel: half of SUM (kappa_s - kappa_t) / (1 / v + kappa_t)."""
    kappas = [contraction(float(abar)) for abar in abars_at(timesteps, ABARS)]
    return sum((after - kappa) / (1 / variance + kappa) for kappa, after in pairwise(kappas)) / 2


def posterior(d: float) -> tuple[float, float]:
    """(R, V)"""
    shrink = S**2 / (S**2 + d**2)
    return shrink, shrink * d**2


def test_a_steps_term_is_the_divergence_of_the_two_gaussians() -> None:
    """q(x_s | x_t, x_0) of DDPM eq. 7 against the same with the predicted x_0."""
    x_start, drawn, wrong = normal(3, 1, 3, 4, 4, seed=0)
    abar, abar_prev = (float(ABARS[t]) for t in (300, 250))
    beta = 1 - abar / abar_prev
    x = math.sqrt(abar) * x_start + math.sqrt(1 - abar) * drawn
    predicted = (x - math.sqrt(1 - abar) * wrong) / math.sqrt(abar)
    q, p = (
        Normal(
            math.sqrt(abar_prev) * beta / (1 - abar) * x_0 + math.sqrt(1 - beta) * (1 - abar_prev) / (1 - abar) * x,
            math.sqrt(beta * (1 - abar_prev) / (1 - abar)),
        )
        for x_0 in (x_start, predicted)
    )
    terms = chain_divergences(lambda x, t: wrong, x_start, x_start, [300, 250], ABARS, lambda *shape: drawn)
    assert float(terms.steps) == pytest.approx(float(kl_divergence(q, p).sum()), rel=1e-9)
    assert float(terms.start) == 0


def test_the_starts_term_is_the_divergence_of_the_two_gaussians() -> None:
    abar = float(abars_at([22.5], ABARS))
    x_start, image = normal(2, 2, 3, 4, 4, seed=1)
    q, p = (Normal(math.sqrt(abar) * mean, math.sqrt(1 - abar)) for mean in (x_start, image))
    expected = kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(start_divergence(x_start, image, abar), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("truncated", [True, False])
def test_the_terms_of_an_exact_model_are_those_in_closed_form(truncated: bool) -> None:
    """Of 49,152 pixels: each term is a mean of squares of normals, off by sqrt(2 / n) of itself."""
    d, shape = 0.2, (16, 3, 32, 32)
    shrink, variance = posterior(d)
    x_start, *draws = normal(5, *shape, seed=2)
    x_start = S * x_start
    y = x_start + d * normal(*shape, seed=3)
    timesteps = [300, 200, 100, 50, 10] if truncated else [999, 800, 600, 300, 10]
    image = y if truncated else torch.zeros_like(y)
    remaining = iter(draws)
    terms = chain_divergences(
        exact_eps(shrink * y, variance), x_start, image, timesteps, ABARS, lambda *_: next(remaining)
    )
    n, tolerance = x_start.numel(), 5 * math.sqrt(2 / x_start.numel())
    kappa = contraction(float(ABARS[timesteps[0]]))
    expected_start = kappa / 2 * (d**2 if truncated else S**2)
    assert float(terms.start.sum()) / n == pytest.approx(expected_start, rel=tolerance)
    for i, step in enumerate(pairwise(timesteps)):
        assert float(terms.steps[:, i].sum()) / n == pytest.approx(exact_cost(step, variance), rel=tolerance)
    torch.testing.assert_close(terms.total, terms.start + terms.steps.sum(1))


@pytest.mark.parametrize("d", [0.05, 0.2, 1.0])
class TestTruncation:
    @pytest.mark.parametrize("num_steps", [1, 10, 699])
    def test_it_saves_an_exact_model_nothing(self, d: float, num_steps: int) -> None:
        timesteps = [*range(999, N, -(999 - N) // num_steps), N]
        assert KAPPA_N * d**2 / 2 > exact_cost(timesteps, posterior(d)[1])

    def test_above_it_the_steps_of_an_exact_model_cost_mutual_information(self, d: float) -> None:
        """Of x_0 with x_N, less that with x_999, given y: the limit of many steps."""
        _, variance = posterior(d)
        limit = math.log((1 + variance * KAPPA_N) / (1 + variance * contraction(float(ABARS[999])))) / 2
        assert exact_cost(range(999, N - 1, -1), variance) == pytest.approx(limit, rel=0.02)

    def test_it_pays_for_a_model_without_the_condition_where_the_picture_is_good(self, d: float) -> None:
        """An exact model of the faces alone pays log(1 + S^2 kappa_N) / 2 above N: more than a image costs that is
        nearer to x_0 than that, less than one that is not."""
        picture_is_good = d < math.sqrt(math.log(1 + S**2 * KAPPA_N) / KAPPA_N)
        truncation_pays = KAPPA_N * d**2 / 2 < exact_cost(range(999, N - 1, -1), S**2)
        assert truncation_pays == picture_is_good == (d < 0.3)


def test_a_small_picture_of_the_same_degradation_costs_less() -> None:
    """Why the first model is small: noise, and all that is wrong between neighbours, averages out."""
    x_start, abar = normal(4, 3, 64, 64, seed=4), float(ABARS[N])
    y = x_start + 0.3 * normal(4, 3, 64, 64, seed=5)
    halved = [torch.nn.functional.avg_pool2d(image, 2) for image in (x_start, y)]
    large, small = start_divergence(x_start, y, abar).mean(), start_divergence(*halved, abar).mean()
    assert float(small / large) == pytest.approx(1 / 16, rel=5 * math.sqrt(2 / x_start.numel() * 4))
