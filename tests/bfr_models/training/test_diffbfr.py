"""DiffBFR's restoring models: what they are shown, where they start, what they learn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bfr_models.diffusion.schedule import linear_alphas_cumprod
from bfr_models.errors import UsageError
from bfr_models.methods.diffbfr_presets import DIFFBFR
from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.networks.unet_estimator import UNetEstimator
from bfr_models.pixels import resize
from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.data import Faces
from bfr_models.training.difface import Prior
from bfr_models.training.diffbfr import FROM_START, IrmHigh, IrmLow, augment_condition, dense_low_timesteps
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import get_component
from tests.diffbfr import PRIOR, SIZE, TINY, irm_high, irm_low, randomised, saved
from tests.draws import draws_of
from tests.support import portrait

ESTIMATOR = UNetEstimatorConfig(channels=(8, 16), blocks=(1, 1), half_channels=8, full_channels=4, coarsest=4)

ABARS = linear_alphas_cumprod()
Trained = IrmLow | IrmHigh


@pytest.fixture(scope="module")
def faces() -> Faces:
    portraits = np.stack([portrait(number, 2 * SIZE) for number in range(12)])
    return Faces(portraits[:9], portraits[9:], "portraits.parquet")


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """(gt, lq): far apart, so that it shows which of them was used."""
    generator = torch.Generator().manual_seed(0)
    return 0.2 * torch.randn(16, 3, SIZE, SIZE, generator=generator), torch.full((16, 3, SIZE, SIZE), 0.8)


class Spy(nn.Module):
    """Says the same of everything, and remembers what it was asked."""

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        self.eps, self.asked = eps, []

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.asked.append((x, timestep))
        return torch.full_like(x[:, :3], self.eps)


class Oracle(nn.Module):
    """Knows every x_0, and says the eps that leads there from any x_t."""

    def __init__(self, x_start: Tensor) -> None:
        super().__init__()
        self.x_start = x_start

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        abar = ABARS[timestep.long()].view(-1, 1, 1, 1)
        return ((x[:, :3] - abar.sqrt() * self.x_start) / (1 - abar).sqrt()).float()


@pytest.mark.parametrize("component", [irm_low(), irm_high()], ids=["low", "high"])
class TestLoss:
    def test_the_eps_that_leads_to_x_0_costs_nothing(self, component: Trained, pairs: tuple[Tensor, Tensor]) -> None:
        """For chains from a noised x_0 and from a noised y. At t = 0, float32 noise is known to some 1e-5."""
        gt, lq = pairs
        oracle = Oracle(component.images(gt, lq)[0])
        assert float(sum(component.loss(oracle, gt, lq, draws_of(16, step)) for step in range(8))) < 1e-6

    def test_a_network_that_knows_nothing_costs_the_noise_and_the_way_from_y(
        self, component: Trained, pairs: tuple[Tensor, Tensor]
    ) -> None:
        """The mean over 8 x 16 faces; all but a share of them cost 1 where x_t is of x_0, that share less."""
        gt, lq = pairs
        clean, degraded = (
            sum(float(component.loss(Spy(), gt, y, draws_of(16, step))) for step in range(8)) / 8 for y in (gt, lq)
        )
        assert degraded > clean > 1 - FROM_START - 5 * math.sqrt(FROM_START * (1 - FROM_START) / 128)

    def test_a_share_starts_from_y_at_timesteps_around_the_start(
        self, component: Trained, pairs: tuple[Tensor, Tensor]
    ) -> None:
        """y = 0.8 everywhere, x_0 has the mean 0: the mean of x_t tells which of them was noised, where abar is not
        small. A count of n picks is off by sqrt(n p (1 - p))."""
        gt, lq = pairs
        if isinstance(component, IrmHigh):  # its y may be a clean face, made small
            component = irm_high()
            component.training_images = lambda gt, lq, draws: (gt, lq, torch.cat([lq, lq], 1))  # type: ignore[method-assign]
        spy = Spy()
        for step in range(40):
            component.loss(spy, gt, lq, draws_of(16, step))
        x, t = (torch.cat(parts) for parts in zip(*spy.asked, strict=True))
        low, high = component.start // 4, 2 * component.start
        mean = x[:, :3].mean((1, 2, 3)) / ABARS[t].sqrt()
        visible = ABARS[t] > 0.05
        from_y = visible & (mean > 0.4)
        assert from_y.sum() == pytest.approx(640 * FROM_START, abs=5 * math.sqrt(640 * FROM_START))
        assert low <= int(t[from_y].min()) and int(t[from_y].max()) <= high
        assert t.max() > 0.9 * component.t_max and t.min() < 3

    def test_held_out_faces_are_measured_without_chance(self, component: Trained, pairs: tuple[Tensor, Tensor]) -> None:
        gt, lq = (image[:3] for image in pairs)
        measured = component.evaluate(Spy(), gt, lq)
        torch.manual_seed(1)
        assert component.evaluate(Spy(), gt, lq) == measured
        # n = 3 x 3 x 16 x 16 at least; a mean square of n normals is off by sqrt(2 / n)
        assert measured["eps_loss"] == pytest.approx(1, abs=5 * math.sqrt(2 / 2304))
        x_0, _, _ = component.images(gt, lq)
        known = component.evaluate(Oracle(x_0), gt, lq)
        assert known["psnr"] > 60 > known["psnr_lq"] == pytest.approx(known["psnr_start"], abs=1e-4)
        columns = component.preview(Oracle(x_0), gt, lq)
        assert [column.shape for column in columns] == [x_0.shape] * 3
        torch.testing.assert_close(columns[1], columns[2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("make", [irm_low, irm_high])
def test_what_a_chain_from_y_leads_to_is_compared_with_x_0_by_the_distances_given(
    make: Callable[[], Trained], pairs: tuple[Tensor, Tensor]
) -> None:
    """Nothing is added for the eps that leads to x_0; for another, the weighted distances of the share from y, in a
    view of the method's size or a little less."""
    gt, lq = pairs
    trained, plain, seen = make(), make(), []

    def square(restored: Tensor, x_0: Tensor) -> Tensor:
        seen.append(restored.shape)
        return (restored - x_0).square().mean()

    trained.identity_loss.perceptual = SimpleNamespace(to=lambda device: square)  # type: ignore[assignment]
    oracle = Oracle(trained.images(gt, lq)[0])
    assert float(trained.loss(oracle, gt, lq, draws_of(16))) < 1e-6
    added = [float(component.loss(Spy(), gt, lq, draws_of(16))) for component in (trained, plain)]
    assert added[0] > added[1]
    n, channels, height, width = seen[0]
    assert 1 <= n < 16 and channels == 3 and 5 * SIZE // 8 <= height == width <= SIZE


def test_the_first_model_sees_the_lq_face_at_its_own_size(pairs: tuple[Tensor, Tensor]) -> None:
    gt, lq = pairs
    x_0, y, condition = irm_low().training_images(gt, lq, draws_of(16))
    assert torch.equal(x_0, resize(gt, 16).clamp(-1, 1)) and torch.equal(y, resize(lq, 16).clamp(-1, 1))
    assert torch.equal(condition, y)


class TestConditions:
    def test_of_eight_faces_four_are_augmented_three_restored_and_one_is_the_lq_face(
        self, pairs: tuple[Tensor, Tensor]
    ) -> None:
        gt, lq = pairs
        x_0, y, condition = irm_high().training_images(gt, lq, draws_of(16))
        assert torch.equal(x_0, gt) and torch.equal(condition, torch.cat([y, lq], dim=1))
        mean = y.mean((1, 2, 3))
        assert int((y == lq).flatten(1).all(1).sum()) == 2  # of 16
        assert int((mean.abs() < 0.1).sum()) >= 4  # like gt
        assert ((mean > -0.1) & (mean < 0.81)).all()

    def test_the_frozen_first_models_output_is_used_where_it_is_given(
        self, pairs: tuple[Tensor, Tensor], tmp_path: Path
    ) -> None:
        """A first model of the constant eps 0 divides x_t by sqrt(abar): noise stays in its output."""
        gt, lq = pairs
        with torch.no_grad():
            network = randomised(TINY.irm_low, 0)
            for parameter in network.get_submodule("net.conv_out").parameters():
                parameter.zero_()
        component = irm_high(TINY, AuxiliaryWeights(irm_low=saved(network, tmp_path / "low.safetensors")))
        deviation = {name: c.images(gt, lq)[1].std() for name, c in (("it", component), ("none", irm_high()))}
        assert deviation["none"] < 1e-5 and deviation["it"] > 0.05
        _, y, _ = component.training_images(gt, lq, draws_of(16))
        bright = y.mean((1, 2, 3)) > 0.4
        assert (int(bright.sum()), int((y[bright].flatten(1).std(1) > 0.05).sum())) == (12, 10)
        card = json.loads((tmp_path / "low.json").read_text())
        assert component.provenance() == {"irm_low_sha256": card["sha256"]}

    def test_behind_a_regression_network_the_first_model_corrects_its_estimate(
        self, pairs: tuple[Tensor, Tensor], tmp_path: Path
    ) -> None:
        gt, lq = pairs
        network = UNetEstimator(ESTIMATOR)
        with torch.no_grad():
            network.get_parameter("at_full.2.bias")[:3] = -0.25  # in [0, 1]
        path = saved(network, tmp_path / "estimator.safetensors")
        component = irm_high(replace(TINY, estimator=ESTIMATOR), AuxiliaryWeights(estimator=path))
        _, y, condition = component.images(gt, lq)
        torch.testing.assert_close(y, lq - 0.5, rtol=0, atol=1e-5)
        assert torch.equal(condition[:, 3:], lq)
        assert component.provenance() == {
            "estimator_sha256": json.loads(path.with_suffix(".json").read_text())["sha256"]
        }
        with pytest.raises(UsageError, match="tiny has no regression network"):
            irm_high(TINY, AuxiliaryWeights(estimator=path))

    def test_augmented_conditions_are_blurred_and_noised_within_their_ranges(self) -> None:
        """Of white noise, blur keeps 1 / (4 pi sigma^2) of the variance, where sigma is not small; constants keep their
        level and show the added noise, whose deviation of 0 to 0.1 is 0.1 / sqrt(3) in the mean square."""
        flat = augment_condition(torch.full((500, 3, 16, 16), 0.3), draws_of(500)) - 0.3
        sigma = flat.flatten(1).std(1)
        assert abs(flat.mean()) < 5 * 0.1 / math.sqrt(3 * flat.numel())
        assert float(flat.square().mean()) == pytest.approx(0.01 / 3, rel=5 * math.sqrt(0.8 / 500))
        assert 0.1 * 1.15 > sigma.max() > 0.09 and sigma.min() < 0.01
        kept = augment_condition(torch.randn(500, 3, 32, 32), draws_of(500, 1)).flatten(1).var(1)
        assert 1.01 + 5 * math.sqrt(2 / 3072) > kept.max() > 0.8  # sigma 0.2 keeps all, and there may be noise
        assert 0.7 / (4 * math.pi * 1.5**2) < kept.min() < 1.5 / (4 * math.pi * 1.5**2)


class TestTimesteps:
    def test_they_cover_the_chain_in_every_batch_and_lie_dense_where_it_is_clean(self) -> None:
        for step in range(20):
            t = dense_low_timesteps(999, draws_of(16, step)).sort().values
            u = (t / 1000).sqrt() * 16
            assert (u.floor() - torch.arange(16)).abs().max() <= 1  # one in each sixteenth, give or take the rounding
        many = dense_low_timesteps(999, draws_of(20_000))
        assert (int(many.min()), int(many.max())) == (0, 999)
        assert float((many < 250).float().mean()) == pytest.approx(0.5, abs=1e-3)

    def test_their_order_tells_nothing(self) -> None:
        first = torch.stack([dense_low_timesteps(999, draws_of(4, step))[0] for step in range(2000)]).double()
        assert float((first < 250).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2000))


def few_steps(component: Any, learning_rate: float = 2e-3) -> Any:
    component.recipe = replace(component.recipe, batch_size=8, learning_rate=learning_rate, warmup=5, ema=0.9)
    return component


def quiet(line: str) -> None:
    pass


def test_both_models_learn_and_a_resumed_run_is_the_undisturbed_one(faces: Faces, tmp_path: Path) -> None:
    """The first from nothing, the second behind it, from a prior."""
    run = TrainingRun("low", tmp_path / "low", steps=30, evaluate_every=30)
    first_weights = train(few_steps(irm_low()), faces, run, quiet)
    first = json.loads((tmp_path / "low" / "metrics.jsonl").read_text())
    assert first["eps_loss"] < 0.9 and first["psnr_lq"] == first["psnr_start"]
    prior = saved(randomised(PRIOR, 3), tmp_path / "prior.safetensors")

    def second(out: str, steps: int, resume: bool = False) -> bytes:
        component = few_steps(irm_high(TINY, AuxiliaryWeights(irm_low=first_weights)))
        run = TrainingRun("high", tmp_path / out, steps=4, evaluate_every=2, initial=prior, resume=resume)
        run = replace(run, publish=lambda: _stop(tmp_path / out, steps))
        try:
            return train(component, faces, run, quiet).read_bytes()
        except KeyboardInterrupt:
            return b""

    whole = second("whole", 4)
    assert second("cut", 2) == b"" and second("cut", 4, resume=True) == whole
    card = json.loads((tmp_path / "whole" / "high.json").read_text())
    assert card["irm_low_sha256"] == json.loads(first_weights.with_suffix(".json").read_text())["sha256"]


def _stop(out: Path, at: int) -> None:
    if at < 4 and json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == at:
        raise KeyboardInterrupt


def test_the_texture_model_is_difface_s_prior() -> None:
    component = get_component("diffbfr", "tem", "face128")
    assert isinstance(component, Prior) and component.t_max == 300
    assert DIFFBFR[0].weights["tem"] == "difface-face128-prior"


def test_weights_of_the_first_model_are_for_the_second_alone() -> None:
    with pytest.raises(UsageError, match="expected for diffbfr irm_low only perceptual, recogniser, found irm_low"):
        get_component("diffbfr", "irm_low", "face128", AuxiliaryWeights(irm_low=Path("x")))
