"""The rectified flow: what it is shown, what it costs, what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bfr_models.diffusion.flow import SIGMA, SPEED
from bfr_models.errors import UsageError
from bfr_models.methods.diffbfr import DiffBFR
from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.networks.unet import UNet
from bfr_models.networks.unet_estimator import UNetEstimator
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.data import Faces
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import get_component
from bfr_models.types import FaceBatch
from bfr_models.weights.files import read_card
from tests.diffbfr import PRIOR, SIZE, TINY, flow, randomised, saved
from tests.draws import draws_of
from tests.support import portrait

ESTIMATOR = UNetEstimatorConfig(channels=(8, 16), blocks=(1, 1), half_channels=8, full_channels=4, coarsest=4)


class Oracle(nn.Module):
    """Knows every x_0, and says the v that leads there: x_s - x_0 = s v. Or the v of nothing, if it knows none."""

    def __init__(self, x_0: Tensor | None = None) -> None:
        super().__init__()
        self.x_0 = x_0
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.asked.append((x, timestep))
        return torch.zeros_like(x) if self.x_0 is None else (x - self.x_0) / (timestep.view(-1, 1, 1, 1) / 1000) / SPEED


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 0.2 * torch.randn(16, 3, SIZE, SIZE, generator=generator), torch.full((16, 3, SIZE, SIZE), 0.5)


def test_the_velocity_that_leads_to_x_0_costs_nothing(pairs: tuple[Tensor, Tensor]) -> None:
    gt, lq = pairs
    assert float(flow().loss(Oracle(gt), gt, lq, draws_of(16))) < 1e-6


def test_a_network_that_says_nothing_costs_the_whole_way(pairs: tuple[Tensor, Tensor]) -> None:
    """z - x_0 has the mean square (y - x_0)^2 + SIGMA^2: 0.25 + 0.04 and what the noise adds."""
    gt, lq = pairs
    expected = ((lq - gt).square().mean() + SIGMA**2) / SPEED**2
    assert float(flow().loss(Oracle(), gt, lq, draws_of(16))) == pytest.approx(float(expected), rel=0.01)


def test_it_is_shown_the_whole_way_from_the_methods_own_face(pairs: tuple[Tensor, Tensor]) -> None:
    """y is 0.5 everywhere and x_0 has the mean 0: the mean of x_s is s / 2, and s is one in each sixteenth."""
    gt, lq = pairs
    spy = Oracle()
    flow().loss(spy, gt, lq, draws_of(16))
    x, t = spy.asked[0]
    torch.testing.assert_close(x.mean((1, 2, 3)), t / 2000, rtol=0, atol=0.02)
    assert sorted((t / 62.5).int().tolist()) == list(range(16))


def test_held_out_faces_are_measured_without_chance(pairs: tuple[Tensor, Tensor]) -> None:
    gt, lq = (image[:3] for image in pairs)
    measured, known = (flow().evaluate(Oracle(x_0), gt, lq) for x_0 in (None, gt))
    assert flow().evaluate(Oracle(), gt, lq) == measured
    assert known["flow_loss"] < 1e-6 and known["psnr"] > 60 > known["psnr_start"] == known["psnr_lq"]
    assert [column.shape for column in flow().preview(Oracle(gt), gt, lq)] == [gt.shape] * 4


def test_it_learns_behind_the_first_model_from_a_prior(tmp_path: Path) -> None:
    portraits = np.stack([portrait(number, 2 * SIZE) for number in range(12)])
    faces = Faces(portraits[:9], portraits[9:], "portraits.parquet")
    first = saved(randomised(TINY.irm_low, 2), tmp_path / "first.safetensors")
    component = flow(AuxiliaryWeights(irm_low=first))
    component.recipe = replace(component.recipe, batch_size=8, warmup=5, learning_rate=2e-3, ema=0.9)
    prior = saved(randomised(PRIOR, 3), tmp_path / "prior.safetensors")
    run = TrainingRun("flow", tmp_path / "out", steps=60, evaluate_every=30, initial=prior)
    weights = train(component, faces, run, lambda _: None)
    before, after = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert after["flow_loss"] < before["flow_loss"]
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["irm_low_sha256"] == json.loads(first.with_suffix(".json").read_text())["sha256"]


def test_the_face_that_it_starts_from_is_the_methods(
    pairs: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(TINY.options, start="estimate", self_ensemble=True, second="flow", sampler="dpm++", texture=False)
    names = ("estimator", "irm_low", "flow")
    preset = replace(TINY, estimator=ESTIMATOR, options=options, weights={name: name for name in names})
    torch.manual_seed(4)
    networks = {"estimator": UNetEstimator(ESTIMATOR), "irm_low": UNet(TINY.irm_low), "flow": UNet(PRIOR)}
    files = {name: saved(network, tmp_path / f"{name}.safetensors") for name, network in networks.items()}
    weights = {name: {"file": file.name, "sha256": read_card(file)["sha256"]} for name, file in files.items()}
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    faces: list[Tensor] = []
    monkeypatch.setattr(DiffBFR, "_flow", lambda self, face, noise: faces.append(face) or face)
    lq = pairs[0][:3].clamp(-1, 1)
    DiffBFR(ResolvedMethod("diffbfr", preset, options, weights, ""), "cpu").restore(
        FaceBatch(("a", "b", "c"), lq, (0, 1, 2))
    )

    component = flow(AuxiliaryWeights(irm_low=files["irm_low"], estimator=files["estimator"]), preset)
    y = component.before.start_of_second(lq, RowNoise(range(3), "cpu"))
    torch.testing.assert_close(y, faces[0], rtol=0, atol=1e-5)
    assert (y - lq).abs().max() > 0.01
    spy = Oracle()
    component.evaluate(spy, lq, lq)
    start = next(x for x, t in spy.asked if float(t[0]) == 1000)
    assert float((start - y).square().mean().sqrt()) == pytest.approx(SIGMA, rel=0.05)


def test_presets_without_a_flow_are_refused() -> None:
    with pytest.raises(UsageError, match="expected a preset with a flow, found ffhq512"):
        get_component("diffbfr", "flow", "ffhq512")
