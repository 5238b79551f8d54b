"""What can be trained, and what its losses measure."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.training.difface import Estimator, Prior
from bfr_models.training.registry import COMPONENTS, PRESETS, get_component
from tests.draws import draws_of


class Fixed(nn.Module):
    """A network that always says the same."""

    def __init__(self, output: Tensor | float) -> None:
        super().__init__()
        self.output = torch.as_tensor(output)

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        return self.output.expand(x.shape)


def test_every_component_belongs_to_a_method_that_loads_it() -> None:
    trained_by_another = {("difface", "estimator"): "face128-swinir"}  # than the first preset that has an estimator
    for method, component in COMPONENTS:
        names = ((p, {*p.weights, *(stem.rpartition("-")[2] for stem in p.weights.values())}) for p in PRESETS[method])
        first = next(preset.name for preset, found in names if component in found)
        preset = trained_by_another.get((method, component), first)
        assert get_component(method, component, preset).recipe.size == 128


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
    assert float(prior.loss(Fixed(0.0), gt, gt, draws_of(4))) == pytest.approx(1, abs=tolerance)


def test_a_prior_learns_all_the_timesteps_it_is_used_at_and_no_others(prior: Prior) -> None:
    seen: set[int] = set()

    class Spy(Fixed):
        def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
            seen.update(timestep.tolist())  # type: ignore[union-attr]
            return super().forward(x)

    gt = torch.zeros(20_000, 3, 1, 1)  # one of 301 is never drawn with probability 301 (300 / 301)^20000 = 1e-26
    prior.loss(Spy(0.0), gt, gt, draws_of(20_000))
    assert seen == set(range(301))
