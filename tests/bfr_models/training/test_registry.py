"""What can be trained, and what its losses measure."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bfr_models.diffusion.schedule import linear_alphas_cumprod
from bfr_models.errors import UsageError
from bfr_models.training.difface import Estimator, Prior
from bfr_models.training.registry import AT_512, COMPONENTS, PRESETS, build_component, get_component
from tests.draws import draws_of
from tests.small_trainings import SIZE, TINY


class Fixed(nn.Module):
    """A network that always says the same."""

    def __init__(self, output: Tensor | float) -> None:
        super().__init__()
        self.output = torch.as_tensor(output)

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        return self.output.expand(x.shape)


def test_every_component_belongs_to_a_method_that_loads_it() -> None:
    # Than the first preset that has it: of face128, both are another kind of network, trained as `estimator_unet`.
    trained_by_another = {("difface", "estimator"): "ffhq512", ("clr_face", "irn"): "ffhq512"}
    parts = {"vqgan_decoder": "vqgan"}  # trained by itself, loaded as a part of a whole
    for method, component in COMPONENTS:
        loaded = parts.get(component, component)
        names = ((p, {*p.weights, *(stem.rpartition("-")[2] for stem in p.weights.values())}) for p in PRESETS[method])
        first = next(preset.name for preset, found in names if loaded in found)
        preset = trained_by_another.get((method, component), first)
        size = next(p.size for p in PRESETS[method] if p.name == preset)
        assert get_component(method, component, preset).recipe.size == size


def test_an_unknown_component_lists_the_known() -> None:
    known = ", ".join(" ".join(key) for key in COMPONENTS)
    with pytest.raises(UsageError, match=f"unknown component 'difface decoder'; known: {known}"):
        get_component("difface", "decoder", "face128")


def test_an_unknown_preset_lists_the_known() -> None:
    with pytest.raises(UsageError, match=re.escape("unknown preset of difface 'hd'; known: face128")):
        get_component("difface", "prior", "hd")


def test_the_estimators_loss_is_the_mean_absolute_error(estimator: Estimator) -> None:
    gt = torch.full((2, 3, 8, 8), 0.5)  # 0.75 of the network's range
    assert float(estimator.loss(Fixed(0.25), gt, gt, draws_of(2))) == pytest.approx(0.5)


def test_the_estimator_is_measured_against_its_input(estimator: Estimator) -> None:
    gt = torch.full((2, 3, 8, 8), 0.5)
    measured = estimator.evaluate(Fixed(0.5), gt, torch.full_like(gt, 0.25))
    assert measured["psnr"] == pytest.approx(20 * math.log10(2 / 0.5))
    assert measured["psnr_lq"] == pytest.approx(20 * math.log10(2 / 0.25))


def test_a_prior_that_knows_nothing_costs_the_variance_of_the_noise(prior: Prior) -> None:
    """A mean square of n normals is off by sqrt(2 / n)."""
    torch.manual_seed(0)
    gt = torch.rand(4, 3, 32, 32) * 2 - 1
    tolerance = 5 * math.sqrt(2 / gt.numel())
    assert prior.evaluate(Fixed(0.0), gt, gt)["eps_loss"] == pytest.approx(1, abs=tolerance)
    t = (300 * draws_of(4).stratified() ** 1.5).round().long()
    snr = linear_alphas_cumprod()[t] / (1 - linear_alphas_cumprod()[t])
    weights = (25 / snr).clamp(max=1)
    assert 0 < float(weights.min()) < float(weights.max()) == 1
    assert float(prior.loss(Fixed(0.0), gt, gt, draws_of(4))) == pytest.approx(float(weights.mean()), abs=tolerance)


def test_a_prior_learns_all_the_timesteps_it_is_used_at_and_no_others(prior: Prior) -> None:
    seen: set[int] = set()

    class Spy(Fixed):
        def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
            seen.update(timestep.tolist())  # type: ignore[union-attr]
            return super().forward(x)

    gt = torch.zeros(20_000, 3, 1, 1)  # one of 301 is never drawn with probability 301 (300 / 301)^20000 = 1e-26
    prior.loss(Spy(0.0), gt, gt, draws_of(20_000))
    assert seen == set(range(301))


def test_every_network_of_ffhq512_has_a_recipe_that_eight_gpus_can_share() -> None:
    of_small_faces = {("difface", "estimator_unet"), ("difface", "detail"), ("diffbfr", "flow")}
    parts = {("clr_face", "vqgan_decoder")}
    assert set(AT_512) == set(COMPONENTS) - of_small_faces - parts
    for (method, component), spec in AT_512.items():
        recipe = get_component(method, component, "ffhq512").recipe
        assert (recipe.size, recipe.steps, recipe.batch_size % 8) == (512, spec.steps, 0)
        assert recipe.warmup < recipe.steps


class Variance(nn.Module):
    """Knows the noise that `draws_of` gives, and is off by `error`; says v everywhere."""

    def __init__(self, v: float, error: float = 0.0) -> None:
        super().__init__()
        self.v, self.error = v, error

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        draws = draws_of(len(x))
        draws.integers(0, 1000)  # the timesteps are drawn first
        eps = draws(*x.shape[1:]) + self.error
        return torch.cat([eps, torch.full_like(eps, self.v)], dim=1)


def test_a_learned_variance_costs_its_distance_to_that_of_the_chain() -> None:
    """KL of two normals of log variances a and b in bits: (b - a + e^(a - b) - 1) / (2 ln 2). If the mean is right, the
    variance of q(x_{t-1} | x_t, x_0), v = -1, costs nothing; beta, v = 1, is too large by beta / beta~."""
    preset = replace(TINY, prior=replace(TINY.prior, learn_sigma=True), max_timestep=999)
    prior = build_component("difface", "prior", preset)
    gt = torch.zeros(8, 3, SIZE, SIZE)
    losses = {v: float(prior.loss(Variance(v), gt, gt, draws_of(8))) for v in (-1.0, 1.0)}
    assert losses[-1.0] == pytest.approx(0, abs=1e-5)  # float32 of log variances of some 10
    t = draws_of(8).integers(0, 1000).clamp(min=1)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abars = torch.cumprod(1 - betas, 0)
    ratio = (1 - abars[t]) / (1 - abars[t - 1])  # beta / beta~
    expected = ((ratio.log() + 1 / ratio - 1) / (2 * math.log(2))).mean()
    assert losses[1.0] == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
    assert float(prior.loss(Variance(-1.0, 0.1), gt, gt, draws_of(8))) > 0.1**2


def test_the_mean_learns_nothing_through_the_variance() -> None:
    preset = replace(TINY, prior=replace(TINY.prior, learn_sigma=True, unshuffle=1))
    prior = build_component("difface", "prior", preset)
    network = prior.build()
    gt = torch.rand(2, 3, SIZE, SIZE)
    prior.loss(network, gt, gt, draws_of(2)).backward()  # type: ignore[no-untyped-call]
    with_it = network.net.conv_out.weight.grad.clone()  # type: ignore[union-attr]
    network.zero_grad()
    draws = draws_of(2)
    t, weight = prior._timesteps(draws)  # type: ignore[attr-defined]
    noise = draws(*gt.shape[1:])
    eps = prior._predicted(network, gt, t, noise)[0]  # type: ignore[attr-defined]
    (weight.to(gt) * (eps - noise).square()).mean().backward()  # type: ignore[no-untyped-call]
    alone = network.net.conv_out.weight.grad  # type: ignore[union-attr]
    torch.testing.assert_close(with_it[:3], alone[:3], rtol=1e-4, atol=1e-7)
    assert with_it[3:].abs().max() > 0 and alone[3:].abs().max() == 0
