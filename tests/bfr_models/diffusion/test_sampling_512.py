"""The samplers of DifFace's 512 px networks against their equations, written out in numpy's float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.sampling import Noise, Step, XstartHook, clipped, get_sampler, sample, unedited
from bfr_models.diffusion.schedule import levels_at, linear_alphas_cumprod, respaced_timesteps, truncated_timesteps

ABARS = linear_alphas_cumprod()
OFFICIAL_DDIM = list(range(396, -1, -4))
OFFICIAL_ANCESTRAL = respaced_timesteps(250)[:100][::-1]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def replay(draws: Sequence[Tensor]) -> Noise:
    remaining = iter(draws)
    return lambda *shape: next(remaining)


def wavy_eps(x: Any, t: float) -> Any:
    """A fixed nonlinear network, of numpy arrays or tensors: t matters, and x_0 is clipped often."""
    flip = x.flip(-1) if isinstance(x, Tensor) else x[..., ::-1]
    bounded = 1.3 * x - 0.4 * flip + 0.2 * math.sin(t)
    return bounded / (1 + bounded**2) ** 0.5


def wavy_variance(x: Any, t: float) -> Any:
    """From a little below -1 to a little above 1: a network is not held to its bounds."""
    return 1.1 * wavy_eps(x * 2 - 0.3, t + 1)


def scalar_abar(t: int) -> float:
    product = 1.0
    for s in range(t + 1):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * s / 999)
    return product


def ddim_reference(x: Any, timesteps: Sequence[int], eta: float, draws: Any) -> Any:
    """Respaced DDIM as its paper has it, eq. 12 and 16; eps stays as predicted when x_0 is clipped."""
    for t, t_prev, z in zip(timesteps, [*timesteps[1:], -1], draws, strict=True):
        abar, abar_prev = scalar_abar(t), scalar_abar(t_prev)
        eps = wavy_eps(x, t)
        x_0 = np.clip((x - math.sqrt(1 - abar) * eps) / math.sqrt(abar), -1, 1)
        sigma = eta * math.sqrt((1 - abar_prev) / (1 - abar)) * math.sqrt(1 - abar / abar_prev)
        x = math.sqrt(abar_prev) * x_0 + math.sqrt(1 - abar_prev - sigma**2) * eps + (sigma * z if t > 0 else 0)
    return x


def ancestral_reference(x: Any, timesteps: Sequence[int], draws: Any) -> Any:
    """Respaced DDPM with learned variances: posterior mean of DDPM eq. 7, variance of improved DDPM eq. 15."""
    for t, t_prev, z in zip(timesteps, [*timesteps[1:], -1], draws, strict=True):
        abar, abar_prev = scalar_abar(t), scalar_abar(t_prev)
        alpha = abar / abar_prev
        beta = 1 - alpha
        x_0 = np.clip((x - math.sqrt(1 - abar) * wavy_eps(x, t)) / math.sqrt(abar), -1, 1)
        mean = (math.sqrt(abar_prev) * beta * x_0 + math.sqrt(alpha) * (1 - abar_prev) * x) / (1 - abar)
        if t == 0:
            return mean
        share = (wavy_variance(x, t) + 1) / 2
        beta_tilde = beta * (1 - abar_prev) / (1 - abar)
        x = mean + np.exp((share * math.log(beta) + (1 - share) * math.log(beta_tilde)) / 2) * z
    raise AssertionError("the chain did not end at t = 0")


def with_variance(x: Tensor, t: float) -> Tensor:
    return torch.cat([wavy_eps(x, t), wavy_variance(x, t)], dim=1)


def run(
    sampler: str, x: Tensor, timesteps: Sequence[int], noise: Noise, eta: float = 0.5, hook: XstartHook = unedited
) -> Tensor:
    model = with_variance if sampler == "ancestral" else wavy_eps
    return sample(model, x, levels_at(timesteps, ABARS), get_sampler(sampler, eta), noise, clipped(hook))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_the_hundred_steps_are_those_of_the_equations(eta: float, dtype: torch.dtype, tolerance: float) -> None:
    x, *draws = normal(101, 2, 3, 8, 8)
    expected = ddim_reference(x.numpy(), OFFICIAL_DDIM, eta, [z.numpy() for z in draws])
    noise = replay([z.to(dtype) for z in draws])
    ours = run("ddim", x.to(dtype), truncated_timesteps(396, 100), noise, eta)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)


class TestAncestral:
    def test_its_timesteps_are_those_of_the_first_release(self) -> None:
        chain = respaced_timesteps(250)
        assert (chain[:4], chain[99:102], chain[-1], len(set(chain))) == ([0, 4, 8, 12], [397, 401, 405], 999, 250)
        assert respaced_timesteps(1000) == list(range(1000))
        with pytest.raises(ValueError, match="2 <= num_steps <= 1000, got 1001"):
            respaced_timesteps(1001)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
    def test_the_hundred_steps_are_those_of_the_equations(self, dtype: torch.dtype, tolerance: float) -> None:
        x, *draws = normal(101, 2, 3, 8, 8)
        expected = ancestral_reference(x.numpy(), OFFICIAL_ANCESTRAL, [z.numpy() for z in draws])
        noise = replay([z.to(dtype) for z in draws])
        ours = run("ancestral", x.to(dtype), OFFICIAL_ANCESTRAL, noise)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)

    def test_a_truncated_chain_is_that_of_diffusers(self) -> None:
        scheduler = DDPMScheduler(
            1000, 1e-4, 0.02, "linear", variance_type="learned_range", clip_sample=True, timestep_spacing="linspace"
        )
        scheduler.alphas_cumprod = ABARS  # theirs is float32
        scheduler.set_timesteps(timesteps=OFFICIAL_ANCESTRAL)
        generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
        theirs = x = normal(1, 3, 8, 8)
        for t in OFFICIAL_ANCESTRAL:
            theirs = scheduler.step(with_variance(theirs, t), t, theirs, generator=generator).prev_sample

        def noise(*shape: int) -> Tensor:
            return torch.randn((1, *shape), generator=again, dtype=torch.float64)

        ours = run("ancestral", x, OFFICIAL_ANCESTRAL, noise)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)

    @pytest.mark.parametrize(("v", "bound"), [(1.0, "beta"), (-1.0, "posterior")])
    def test_the_learned_variance_lies_between_its_bounds(self, v: float, bound: str) -> None:
        abar, abar_prev = float(ABARS[300]), float(ABARS[290])
        x, eps, z = normal(3, 1, 3, 4, 4)
        now, to = (Level(math.nan, math.sqrt(a), math.sqrt(1 - a)) for a in (abar, abar_prev))
        output = torch.cat([eps, torch.full_like(x, v)], dim=1)
        mean, drawn = (
            Step(get_sampler("ancestral"), with_variance, now, to, x, output, draw).take()
            for draw in (torch.zeros_like(z), z)
        )
        beta = 1 - abar / abar_prev
        variance = {"beta": beta, "posterior": beta * (1 - abar_prev) / (1 - abar)}[bound]
        torch.testing.assert_close(drawn - mean, math.sqrt(variance) * z, rtol=0, atol=1e-14)

    def test_the_last_step_draws_nothing(self) -> None:
        def no_noise(*shape: int) -> Tensor:
            raise AssertionError("the last step drew noise")

        x = normal(1, 3, 4, 4)
        restored = run("ancestral", x, [0], no_noise)
        assert torch.equal(restored, levels_at([0], ABARS)[0].predict_start(x, wavy_eps(x, 0)).clamp(-1, 1))


def run_with_hook(sampler: str, x: Tensor, hook: XstartHook) -> Tensor:
    return run(sampler, x, [300, 200, 100, 0], replay(normal(9, *x.shape)), hook=hook)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm++"])
class TestHook:
    def test_it_edits_every_prediction_before_it_is_clipped(self, sampler: str) -> None:
        seen = []

        def hook(pred_xstart: Tensor) -> Tensor:
            seen.append(float(pred_xstart.abs().max()))
            return torch.where(torch.arange(8) < 4, pred_xstart, 0.25)

        restored = run_with_hook(sampler, normal(1, 3, 8, 8), hook)
        assert len(seen) == 4 and max(seen) > 1
        assert (restored[..., 4:] == 0.25).all()
        assert (restored[..., :4] != 0.25).all() and restored.abs().max() <= 1

    def test_what_it_changes_reaches_the_rest_of_the_image(self, sampler: str) -> None:
        dark, light = (
            run_with_hook(sampler, normal(1, 3, 8, 8), lambda p, v=v: torch.where(torch.arange(8) < 4, p, v))  # type: ignore[misc]
            for v in (-0.9, 0.2)
        )
        assert not torch.allclose(dark[..., :4], light[..., :4])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm++"])
def test_no_step_waits_for_the_gpu(sampler: str) -> None:
    from bfr_models.rng import RowNoise

    noise, x, timesteps = RowNoise([1, 2], "cuda"), torch.randn(2, 3, 16, 16, device="cuda"), [300, 200, 100, 0]
    noise(3, 16, 16)  # pinned memory is set up by the first draw
    torch.cuda.set_sync_debug_mode("error")
    try:
        restored = run(sampler, x, timesteps, noise)  # raises where a step waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert restored.is_cuda and bool(restored.isfinite().all())
