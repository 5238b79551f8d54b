"""How the network of the finest octave is trained: behind which coarse face, on which crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import DifFacePreset
from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.unet_estimator import UNetEstimator
from bfr_models.pixels import resize
from bfr_models.training.component import Component
from bfr_models.training.data import Faces
from bfr_models.training.detail import Detail
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import build_component, get_component
from bfr_models.weights.files import read_card
from bfr_models.weights.tensors import parameters_of, save_weights
from tests.draws import draws_of
from tests.small_trainings import TINY, UNET

SIZE = 64
CARD = {"parameters": 0, "licence": "Apache-2.0"}
PRESET: DifFacePreset = replace(
    TINY, name="tiny256", size=SIZE, weights={"detail_estimator": "tiny-estimator"},
    detail=DetailConfig(channels=(8, 12), blocks=(1, 1), half_channels=4, full_channels=4, estimator=UNET),
)  # fmt: skip


class Recorded(nn.Module):
    """Draws what it is told to, and keeps what it was given."""

    def __init__(self, drawn: Tensor) -> None:
        super().__init__()
        self.drawn, self.given = drawn, list[tuple[Tensor, Tensor]]()

    def forward(self, lq: Tensor, coarse: Tensor) -> Tensor:
        self.given.append((lq, coarse))
        return self.drawn


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detail:
    """Behind an estimator that changes nothing, as every fresh one."""
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    save_weights(parameters_of(UNetEstimator(UNET)), CARD, tmp_path / "weights" / "tiny-estimator.safetensors")
    built: Component = build_component("difface", "detail", PRESET)
    assert isinstance(built, Detail)
    built.prepare(nn.Identity(), torch.zeros(1, 3, SIZE, SIZE))
    return built


def test_both_pictures_are_cut_at_the_same_place(component: Detail) -> None:
    """A face whose pixels say where they are: as the degraded face has it, so has the coarse one at half the side."""
    ramp = torch.linspace(-1, 1, SIZE)
    gt = torch.stack([ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)]).repeat(
        8, 1, 1, 1
    )
    network = Recorded(torch.zeros(8, 3, SIZE // 2, SIZE // 2))
    component.loss(network, gt, gt, draws_of(8))
    ((lq, coarse),) = network.given
    assert lq.shape == (8, 3, SIZE // 2, SIZE // 2) and coarse.shape == (8, 3, SIZE // 4, SIZE // 4)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))  # of a ramp a resize changes the borders
    torch.testing.assert_close(resize(lq, SIZE // 4)[inside], coarse[inside], rtol=0, atol=0.01)
    assert len({float(crop[0].min()) for crop in lq}) > 1, "each at a place of its own"


def test_the_coarse_face_lies_between_the_estimate_and_half_way_to_the_truth(component: Detail) -> None:
    gt, lq = torch.ones(64, 3, SIZE, SIZE), -torch.ones(64, 3, SIZE, SIZE)
    network = Recorded(torch.ones(64, 3, SIZE // 2, SIZE // 2))
    assert float(component.loss(network, gt, lq, draws_of(64))) == pytest.approx(0, abs=1e-6)
    shares = network.given[0][1].mean(dim=(1, 2, 3))
    assert 0 <= shares.min() < 0.1 and 0.4 < shares.max() <= 0.5


def test_a_short_training_writes_weights_that_say_what_they_were_trained_behind(
    component: Detail, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures: Any = torch.randint(0, 256, (12, 2 * SIZE, 2 * SIZE, 3), generator=generator, dtype=torch.uint8).numpy()
    component.recipe = replace(component.recipe, batch_size=4, warmup=1)
    run = TrainingRun("difface-tiny256-detail", tmp_path / "out", steps=2, precision="fp32", evaluate_every=2)
    card = read_card(train(component, Faces(pictures[:8], pictures[8:], "noise"), run, lambda _: None))
    assert list(card["trained_with"]) == ["tiny-estimator.safetensors"]
    assert {"psnr", "psnr_up"} <= card["held_out"].keys()


def test_presets_without_it_and_its_other_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="expected a preset with a detail network, found face128"):
        get_component("difface", "detail", "face128")
    with pytest.raises(UsageError, match="expected another preset for difface prior, found face256"):
        get_component("difface", "prior", "face256")
