"""The samplers against diffusers' schedulers, and against Gaussian data, where everything is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.sampling import (
    Model,
    Noise,
    Step,
    as_model,
    clipped,
    get_sampler,
    sample,
    truncated_sample,
    truncated_sample_each,
)
from bfr_models.diffusion.schedule import (
    abars_at,
    add_noise,
    fractional_timesteps,
    levels_at,
    linear_alphas_cumprod,
    truncated_timesteps,
)

SCHEDULE: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
ABARS = linear_alphas_cumprod()
MEAN, STD = 0.1, 0.15  # of the Gaussian data: small enough that x_0 is never clipped


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def wavy_eps(x: Tensor, t: float) -> Tensor:
    """A fixed nonlinear network: neighbours interact, t matters, and x_0 is clipped often."""
    return torch.tanh(1.3 * x - 0.4 * x.roll(1, -1) + 0.2 * math.sin(t))


def replay(draws: Sequence[Tensor]) -> Noise:
    remaining = iter(draws)
    return lambda *shape: next(remaining)


def no_noise(*shape: int) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def run(
    name: str, model: Model, x: Tensor, timesteps: Sequence[float], abars: Tensor = ABARS, eta: float = 0.0,
    noise: Noise = no_noise,
) -> Tensor:  # fmt: skip
    return sample(model, x, levels_at(timesteps, abars), get_sampler(name, eta), noise, clipped())


def gaussian_eps(abars: Tensor) -> Model:
    """E[eps | x_t] for x_0 ~ N(MEAN, STD^2)."""

    def eps(x: Tensor, t: float) -> Tensor:
        abar = float(abars[int(t)])
        return math.sqrt(1 - abar) * (x - math.sqrt(abar) * MEAN) / (abar * STD**2 + 1 - abar)

    return eps


def step(x: Tensor, eps: Tensor, abar: float, abar_prev: float, eta: float, z: Tensor) -> Tensor:
    """One of DDIM's, by itself."""
    now, to = (Level(math.nan, math.sqrt(a), math.sqrt(1 - a)) for a in (abar, abar_prev))
    return Step(get_sampler("ddim", eta), wavy_eps, now, to, x, eps, z if eta else None, clipped()).take()


class TestDdim:
    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_a_truncated_chain_is_that_of_diffusers(self, eta: float) -> None:
        """DifFace's own: the last 100 of 250 steps. In float64 a hundred steps round by less than 1e-12."""
        timesteps = truncated_timesteps(396, 100)
        x, *draws = normal(101, 2, 3, 8, 8)
        scheduler = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True, **SCHEDULE)
        scheduler.alphas_cumprod = ABARS  # theirs is float32
        scheduler.set_timesteps(250)
        assert scheduler.timesteps[-100:].tolist() == timesteps
        theirs = x
        for t, z in zip(timesteps, draws, strict=True):
            theirs = scheduler.step(wavy_eps(theirs, t), t, theirs, eta=eta, variance_noise=z).prev_sample
        ours = run("ddim", wavy_eps, x, timesteps, eta=eta, noise=replay(draws))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    def test_without_eta_no_noise_is_drawn(self) -> None:
        """Nor is the result of a noisy chain with its noise left out the same."""
        x, timesteps = normal(1, 3, 4, 4), [300, 100, 0]
        still = run("ddim", wavy_eps, x, timesteps, eta=0.0, noise=no_noise)
        assert torch.equal(run("ddim", wavy_eps, x, timesteps, eta=0.0, noise=replay([])), still)
        silent = run("ddim", wavy_eps, x, timesteps, eta=0.5, noise=lambda *shape: torch.zeros_like(x))
        assert not torch.equal(silent, still)

    @pytest.mark.parametrize(("t", "t_prev"), [(1, 0), (300, 290), (999, 500)])
    def test_with_eta_one_a_step_is_the_posterior_of_ddpm(self, t: int, t_prev: int) -> None:
        """q(x_prev | x_t, x_0) of DDPM, eq. 7, written in its own terms."""
        abar, abar_prev = float(ABARS[t]), float(ABARS[t_prev])
        alpha = abar / abar_prev
        x_start, eps, z = normal(3, 1, 3, 8, 8).clamp(-1, 1)
        x = math.sqrt(abar) * x_start + math.sqrt(1 - abar) * eps
        coef_start = math.sqrt(abar_prev) * (1 - alpha) / (1 - abar)
        coef_x = math.sqrt(alpha) * (1 - abar_prev) / (1 - abar)
        posterior_std = math.sqrt((1 - abar_prev) / (1 - abar) * (1 - alpha))
        expected = coef_start * x_start + coef_x * x + posterior_std * z
        stepped = step(x, eps, abar, abar_prev, 1.0, z)
        torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-10)  # 1 - abar_0 = 1e-4 loses 4 of 16 digits

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_with_the_true_noise_a_step_lands_on_the_forward_process(self, eta: float) -> None:
        """Lemma 1: q(x_prev | x_0) for every eta. A mean of n normals is off by sigma / sqrt(n), a variance by
        sqrt(2 / n)."""
        abar, abar_prev = float(ABARS[300]), float(ABARS[200])
        eps, z = normal(2, 1, 3, 256, 256)
        stepped = step(math.sqrt(abar) * 0.4 + math.sqrt(1 - abar) * eps, eps, abar, abar_prev, eta, z)
        n = stepped.numel()
        assert abs(stepped.mean() - math.sqrt(abar_prev) * 0.4) <= 5 * math.sqrt((1 - abar_prev) / n)
        assert abs(stepped.var() / (1 - abar_prev) - 1) <= 5 * math.sqrt(2 / n)


class ClippingSolver(DPMSolverMultistepScheduler):
    """diffusers' solver with the static clipping of x_0 that only its other schedulers have."""

    def convert_model_output(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().convert_model_output(*args, **kwargs).clamp(-1, 1)


class TestDpmSolver:
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
    @pytest.mark.parametrize(("start", "num_steps"), [(150, 5), (400, 20), (999, 50), (300, 1)])
    def test_a_truncated_chain_is_that_of_diffusers(self, start: int, num_steps: int) -> None:
        """Theirs computes in float32: every step rounds by some 2^-24 and clipping keeps the errors from growing;
        1e-5 is 80 roundings more than one, and 1/800 of a grey level."""
        timesteps = truncated_timesteps(start, num_steps)
        x = normal(2, 3, 8, 8, dtype=torch.float32)
        scheduler = ClippingSolver(
            1000, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **SCHEDULE
        )
        scheduler.set_timesteps(timesteps=timesteps)
        theirs = x
        for t in timesteps:
            theirs = scheduler.step(wavy_eps(theirs, t), t, theirs).prev_sample
        torch.testing.assert_close(run("dpm++", wavy_eps, x, timesteps), theirs, rtol=0, atol=1e-5)

    def test_no_timesteps_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one timestep"):
            run("dpm++", wavy_eps, normal(1, 3, 4, 4), [])


class TestOnGaussianData:
    """x_0 ~ N(MEAN, STD^2), from lambda -2 to 3 in equal steps; the samplers' last step is the denoiser at 3.

    The ratio of the errors of n and 2n steps tends to 2^order; at 128 steps it is there to within some 5 percent.
    """

    @pytest.mark.parametrize(("order", "sampler"), [(2, "dpm++"), (1, "ddim")])
    def test_probability_flow_is_solved_to_the_samplers_order(self, order: int, sampler: str) -> None:
        def error(num_steps: int) -> float:
            abars = abars_even_in_lambda(num_steps)
            quantile = normal(1, 3, 8, 8)  # kept by the flow
            x = noisy_mean(abars[-1]) + noisy_std(abars[-1]) * quantile
            exact = MEAN + denoised_std(abars[0]) * quantile
            return float((run(sampler, gaussian_eps(abars), x, range(num_steps, -1, -1), abars) - exact).abs().max())

        assert math.log2(error(128) / error(256)) == pytest.approx(order, abs=0.1)

    def test_ancestral_sampling_has_the_mean_and_tends_to_the_variance_of_the_data(self) -> None:
        """The chain is affine in its draws, so a batch of unit draws gives its variance without chance."""

        def variance(num_steps: int) -> Tensor:
            abars = abars_even_in_lambda(num_steps)
            draws = torch.eye(num_steps + 2, dtype=torch.float64)[..., None, None, None]  # the last row: no draw at all
            draws[-1] = 0
            x = noisy_mean(abars[-1]) + noisy_std(abars[-1]) * draws[:, :1, 0]
            noise = replay(list(draws.unbind(1))[1:])
            sampled = run("ddim", gaussian_eps(abars), x, range(num_steps, -1, -1), abars, 1.0, noise)
            assert float(sampled[-1]) == pytest.approx(MEAN, rel=1e-12)
            return (sampled - sampled[-1]).square().sum()

        exact = denoised_std(abars_even_in_lambda(1)[0]) ** 2
        assert math.log2((variance(128) - exact) / (variance(256) - exact)) == pytest.approx(1, abs=0.1)


def abars_even_in_lambda(num_steps: int) -> Tensor:
    """Index 0 is the cleanest, as always."""
    return torch.sigmoid(2 * torch.linspace(3, -2, num_steps + 1, dtype=torch.float64))


def noisy_mean(abar: Tensor) -> Tensor:
    return abar.sqrt() * MEAN


def noisy_std(abar: Tensor) -> Tensor:
    return (abar * STD**2 + 1 - abar).sqrt()


def denoised_std(abar: Tensor) -> Tensor:
    """Of E[x_0 | x_t] over the x_t."""
    return abar.sqrt() * STD**2 / noisy_std(abar)


@pytest.mark.parametrize("sampler", ["ddim 0", "ddim 0.5", "ddim 1", "dpm++"])
def test_a_perfect_model_leads_back_to_the_image(sampler: str) -> None:
    x_start = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    draws = normal(21, 2, 3, 8, 8)
    timesteps = truncated_timesteps(400, 20)

    def perfect_eps(x: Tensor, t: float) -> Tensor:
        return (x - ABARS[int(t)].sqrt() * x_start) / (1 - ABARS[int(t)]).sqrt()

    x = ABARS[400].sqrt() * x_start + (1 - ABARS[400]).sqrt() * draws[0]
    name, _, eta = sampler.partition(" ")
    restored = run(name, perfect_eps, x, timesteps, eta=float(eta or 0), noise=replay(draws[1:]))
    torch.testing.assert_close(restored, x_start, rtol=0, atol=1e-12)


def test_a_network_is_asked_with_one_timestep_per_image() -> None:
    class Network(torch.nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            assert timesteps.dtype == torch.float32
            return x + timesteps.view(-1, 1, 1, 1)

    assert torch.equal(as_model(Network())(torch.zeros(2, 3, 1, 1), 7), torch.full((2, 3, 1, 1), 7.0))


DPM = get_sampler("dpm++")


class TestTruncatedSample:
    @pytest.mark.parametrize("eta", [0.0, 0.5, None])
    def test_at_whole_timesteps_it_is_the_samplers_chain(self, eta: float | None) -> None:
        timesteps = truncated_timesteps(300, 8)
        image, *draws = normal(9, 2, 3, 8, 8)
        x = add_noise(image, draws[0], ABARS[300])
        noise = replay(draws[1:])
        name = "dpm++" if eta is None else "ddim"
        expected = run(name, wavy_eps, x, timesteps, eta=eta or 0.0, noise=noise)
        ours = truncated_sample(
            wavy_eps, image, levels_at(timesteps, ABARS), get_sampler(name, eta or 0.0), replay(draws)
        )
        assert torch.equal(ours, expected)

    def test_it_starts_with_the_noise_of_a_fractional_timestep_and_asks_the_network_there(self) -> None:
        """A mean of n normals is off by sigma / sqrt(n), a variance by sqrt(2 / n)."""
        asked: list[tuple[float, Tensor]] = []

        def spy(x: Tensor, t: float) -> Tensor:
            asked.append((t, x))
            return torch.zeros_like(x)

        image = torch.full((1, 3, 256, 256), 0.4, dtype=torch.float64)
        truncated_sample(spy, image, levels_at([22.5, 11.25, 0.0], ABARS), DPM, lambda *shape: normal(1, *shape))
        assert [t for t, _ in asked] == [22.5, 11.25, 0.0]
        x, abar, n = asked[0][1], float((ABARS[22] * ABARS[23]).sqrt()), image.numel()
        assert abs(x.mean() - math.sqrt(abar) * 0.4) <= 5 * math.sqrt((1 - abar) / n)
        assert abs(x.var() / (1 - abar) - 1) <= 5 * math.sqrt(2 / n)

    def test_a_small_step_up_of_the_start_changes_little(self) -> None:
        image, draw = normal(2, 1, 3, 8, 8)
        one, other, far = (
            truncated_sample(wavy_eps, image, levels_at([t, t / 2, 0.0], ABARS), DPM, lambda *_: draw)
            for t in (22.0, 22.001, 23.0)
        )
        assert 0 < (one - other).abs().max() < (one - far).abs().max() / 100

    @pytest.mark.parametrize("from_noise", [True, False])
    def test_an_exact_conditional_model_leads_to_what_the_condition_says(self, from_noise: bool) -> None:
        """x_0 given y is N(y / 2, STD^2). The probability flow keeps the quantile of x_N, and of the image y that it
        starts from no more than sqrt(abar_N) y / 2, in units of the deviation. To half a grey level."""
        y, draw = normal(2, 1, 3, 8, 8)
        y = 0.2 * y

        def eps(x: Tensor, t: float) -> Tensor:
            abar = float(abars_at([t], ABARS))
            return math.sqrt(1 - abar) * (x - math.sqrt(abar) * y / 2) / (abar * STD**2 + 1 - abar)

        start = 999 if from_noise else 300
        image, abar = torch.zeros_like(y) if from_noise else y, ABARS[start]
        levels = levels_at(truncated_timesteps(start, start + 1), ABARS)
        restored = truncated_sample(eps, image, levels, DPM, lambda *_: draw)
        x = add_noise(image, draw, abar)
        quantile = (x - abar.sqrt() * y / 2) / (abar * STD**2 + 1 - abar).sqrt()
        torch.testing.assert_close(restored, y / 2 + denoised_std(ABARS[0]) * quantile, rtol=0, atol=1 / 255)


def test_a_conditional_network_is_asked_with_the_condition_and_a_fraction() -> None:
    class Network(torch.nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            assert (x.shape[1], timesteps.dtype) == (5, torch.float32)
            return x[:, :3].half() + timesteps.view(-1, 1, 1, 1)

    x, condition = torch.zeros(2, 3, 1, 1), torch.ones(2, 2, 1, 1)
    assert torch.equal(as_model(Network(), condition)(x, 7.5), torch.full((2, 3, 1, 1), 7.5))


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("dpm++", 0.0)])
def test_rows_with_levels_of_their_own_go_each_as_if_it_were_alone(name: str, eta: float) -> None:
    starts, draws = [300.0, 22.5, 90.0], normal(9, 3, 3, 8, 8)
    images = 0.3 * normal(3, 3, 8, 8, seed=1)
    chains = [levels_at(fractional_timesteps(start, 6), ABARS) for start in starts]

    def row_eps(x: Tensor, t: float | Sequence[float]) -> Tensor:
        assert isinstance(t, Sequence)
        return torch.cat([wavy_eps(row[None], own) for row, own in zip(x, t, strict=True)])

    sampler = get_sampler(name, eta)
    together = truncated_sample_each(row_eps, images, chains, sampler, replay(draws))
    for row, chain in enumerate(chains):
        own = slice(row, row + 1)
        alone = truncated_sample(wavy_eps, images[own], chain, sampler, replay([draw[own] for draw in draws]))
        assert torch.equal(together[own], alone)


def test_a_network_is_asked_with_each_images_own_timestep() -> None:
    class Network(torch.nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            return x + timestep.view(-1, 1, 1, 1)

    asked = as_model(Network())(torch.zeros(2, 3, 1, 1), [7.5, 3])
    assert torch.equal(asked, torch.tensor([7.5, 3.0]).view(-1, 1, 1, 1).expand(2, 3, 1, 1))
