"""The SDE and the samplers on its levels, against closed forms on Gaussian data, whose score is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bfr_models.diffusion.sampling import Noise, get_sampler, sample
from bfr_models.diffusion.schedule import linear_alphas_cumprod
from bfr_models.diffusion.sde import VPSDE
from bfr_models.diffusion.times import FIRST_TIME, times_from

SDE = VPSDE()
MEAN, STD = 0.7, 0.4  # of the data
DETERMINISTIC = ("heun", "ddim", "dpm++")


def gaussian_eps(z: Tensor, t: float) -> Tensor:
    """The best prediction for data ~ N(MEAN, STD^2): eps = -sigma score."""
    alpha, sigma = SDE.alpha(t), SDE.sigma(t)
    return sigma * (z - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def spread(t: float) -> float:
    """Standard deviation of z_t."""
    return math.sqrt(SDE.alpha(t) ** 2 * STD**2 + SDE.sigma(t) ** 2)


def exact(z: Tensor, t: float) -> Tensor:
    """Where the ODE takes z_t: its quantile stays the same down to FIRST_TIME, and there comes the mean of z_0."""
    first = SDE.alpha(FIRST_TIME) * MEAN + (z - SDE.alpha(t) * MEAN) * spread(FIRST_TIME) / spread(t)
    return SDE.level(FIRST_TIME).predict_start(first, gaussian_eps(first, FIRST_TIME))


def no_noise(*shape: int) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def run(z: Tensor, times: list[float], name: str, eta: float = 0.0, noise: Noise = no_noise) -> Tensor:
    return sample(gaussian_eps, z, SDE.levels(times), get_sampler(name, eta), noise)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


class TestSchedule:
    @pytest.mark.parametrize("t", [1e-3, 0.1, 0.4, 1.0])
    def test_alpha_is_the_integral_of_beta(self, t: float) -> None:
        grid = torch.linspace(0, t, 20_001, dtype=torch.float64)
        betas = torch.tensor([SDE.beta(float(x)) for x in grid], dtype=torch.float64)
        assert SDE.log_alpha(t) == pytest.approx(-float(torch.trapezoid(betas, grid)) / 2, rel=1e-9)  # linear: exact
        assert SDE.alpha(t) ** 2 + SDE.sigma(t) ** 2 == pytest.approx(1, abs=1e-14)
        assert SDE.level(t).half_log_snr == pytest.approx(math.log(SDE.alpha(t) / SDE.sigma(t)), abs=1e-9)

    @pytest.mark.parametrize("t", [0.001, 0.02, 0.4, 0.9])
    def test_the_time_of_so_much_noise_is_found_again(self, t: float) -> None:
        assert SDE.time_of(SDE.sigma(t) / SDE.alpha(t)) == pytest.approx(t, rel=1e-9)

    def test_in_a_thousand_steps_it_is_the_linear_schedule(self) -> None:
        """log(1 - b) = -b - b^2 / 2 - ...: with all betas <= 0.02, at most 0.011 of -log abar is left out; and the
        betas lie at other ends of the steps, which is half of one: 0.01 at most."""
        abars = linear_alphas_cumprod()
        for index in (9, 99, 399, 999):
            ours = 2 * SDE.log_alpha((index + 1) / 1000)
            theirs = math.log(float(abars[index]))
            assert ours == pytest.approx(theirs, rel=0.011, abs=0.01)

    def test_a_batch_is_diffused_to_its_own_times(self) -> None:
        start, noise = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
        times = [0.01, 0.3, 1.0]
        together = SDE.diffuse(start, noise, torch.tensor(times, dtype=torch.float64))
        for i, t in enumerate(times):
            level = SDE.level(t)
            alone = level.diffuse(start[i : i + 1], noise[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone)
            torch.testing.assert_close(
                level.predict_start(alone, noise[i : i + 1]), start[i : i + 1], rtol=0, atol=1e-3
            )


class TestTimes:
    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_they_start_where_the_noise_is_and_end_at_zero(self, steps: int) -> None:
        times = times_from(0.4, steps)
        assert len(times) == steps + 1 and times[0] == 0.4 and times[-1] == 0
        assert times == sorted(times, reverse=True)
        assert steps == 1 or times[-2] == pytest.approx(FIRST_TIME)


class TestSolvers:
    Z = column(-2.0, 0.0, 0.5, 3.0)

    @pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
    def test_the_ode_solvers_converge_to_the_exact_flow_at_their_order(self, name: str, order: int) -> None:
        """Twice the steps, 2^order times less error; a tenth either way is left for the next order's terms."""
        errors = []
        for steps in (160, 320, 640):
            found = run(self.Z, times_from(0.6, steps), name)
            errors.append(float((found - exact(self.Z, 0.6)).abs().max()))
        assert errors[-1] < 5e-3
        for coarse, fine in pairwise(errors):
            assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1 * order)

    @pytest.mark.parametrize(("name", "eta"), [("euler-maruyama", 0.0), ("ddim", 1.0)])
    def test_the_sde_solvers_arrive_at_the_datas_distribution(self, name: str, eta: float) -> None:
        """Steps are linear in z and in the noise: z_0 = a + b z + sum_i c_i noise_i. From z of the diffused data's
        distribution its mean and variance have to be the data's, up to the O(1 / steps) of a first order method."""
        errors = []
        for steps in (100, 200, 400):
            times = times_from(0.6, steps)
            draws = steps - 1  # none in the last step
            # Column k of the batch: 0 nothing, 1 a unit of z, 2 + i a unit of the i-th noise.
            calls = iter(range(draws))

            def unit(*shape: int, calls: object = calls, draws: int = draws) -> Tensor:
                noise = torch.zeros(draws + 2, *shape, dtype=torch.float64)
                noise[2 + next(calls)] = 1  # type: ignore[call-overload]
                return noise

            z = torch.zeros(draws + 2, 1, 1, 1, dtype=torch.float64)
            z[1] = 1
            result = run(z, times, name, eta, unit).flatten()
            constant, gains = result[0], result[1:] - result[0]
            mean = float(constant + gains[0] * SDE.alpha(0.6) * MEAN)
            variance = float(gains[0] ** 2 * spread(0.6) ** 2 + gains[1:].square().sum())
            errors.append(max(abs(mean - MEAN), abs(math.sqrt(variance) - STD)))
        assert errors[-1] < 0.01
        assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]

    @pytest.mark.parametrize("name", ["euler-maruyama", *DETERMINISTIC])
    def test_one_step_gives_the_mean_that_eps_implies(self, name: str) -> None:
        found = run(self.Z, [0.3, 0.0], name)
        assert torch.equal(found, SDE.level(0.3).predict_start(self.Z, gaussian_eps(self.Z, 0.3)))

    @pytest.mark.parametrize(("name", "eta", "draws"), [*((name, 0.0, 0) for name in DETERMINISTIC), ("ddim", 0.5, 3)])
    def test_noise_is_drawn_only_where_it_is_used(self, name: str, eta: float, draws: int) -> None:
        drawn: list[tuple[int, ...]] = []

        def noise(*shape: int) -> Tensor:
            drawn.append(shape)
            return torch.zeros(4, *shape, dtype=torch.float64)

        run(self.Z, times_from(0.5, 4), name, eta, noise)
        assert drawn == [(1, 1, 1)] * draws
