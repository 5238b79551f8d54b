"""The convolutional estimator's loss: where it looks, when it looks how, and what a checkpoint has to know of that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bfr_models.degradation.presets import get_preset
from bfr_models.faces.template import FFHQ_5, TEMPLATE_SIDE
from bfr_models.methods.difface_presets import EstimatorPreset
from bfr_models.methods.preset import OURS
from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights, Component
from bfr_models.training.data import Faces
from bfr_models.training.estimator_unet import UNetRegression, features_weight, lattice, random_crops
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.perceptual import PerceptualDistance
from bfr_models.training.registry import ARCHIVE, build_component
from tests.draws import draws_of

SIZE = 32
TINY = UNetEstimatorConfig(channels=(8, 12, 16), blocks=(1, 1, 1), half_channels=8, full_channels=6, coarsest=2)


def regression(auxiliary: AuxiliaryWeights = NO_AUXILIARY) -> UNetRegression:
    preset = EstimatorPreset("tiny", SIZE, OURS, estimator=TINY)
    built: Component = build_component("difface", "estimator_unet", preset, auxiliary)
    assert isinstance(built, UNetRegression)
    return built


class Fixed(nn.Module):
    """A network that always draws the same."""

    def __init__(self, output: Tensor | float) -> None:
        super().__init__()
        self.output = torch.as_tensor(output)

    def forward(self, x: Tensor) -> Tensor:
        return self.output.expand(x.shape)


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "squeezenet.pth"
    torch.save({name: value.half() for name, value in PerceptualDistance().state_dict().items()}, path)
    return path


def test_the_weight_is_one_on_average_and_three_times_as_much_at_eyes_nose_and_mouth() -> None:
    weight = features_weight(128)
    assert float(weight.mean()) == pytest.approx(1, abs=1e-5)
    for x, y in (FFHQ_5 * 128 / TEMPLATE_SIDE).astype(int).tolist():
        assert float(weight[y, x] / weight.min()) == pytest.approx(3, rel=0.01)
    assert weight[0].max() < 1.01 * weight.min()


def test_the_loss_is_the_weighted_absolute_error() -> None:
    component = regression()
    gt = torch.full((2, 3, SIZE, SIZE), 0.5)  # 0.75 of the network's range
    assert float(component.loss(Fixed(0.25), gt, gt, draws_of(2))) == pytest.approx(0.5)
    wrong_eye, wrong_corner = gt.clone(), gt.clone()
    x, y = (FFHQ_5[0] * SIZE / TEMPLATE_SIDE).astype(int)
    wrong_eye[..., y, x], wrong_corner[..., 0, 0] = 0, 0
    losses = [float(component.loss(Fixed((drawn + 1) / 2), gt, gt, draws_of(2))) for drawn in (wrong_eye, wrong_corner)]
    assert losses[0] == pytest.approx(3 * losses[1], rel=0.05)


def test_it_learns_from_the_perceptual_distance_from_its_step_on(squeezenet: Path) -> None:
    component = regression(AuxiliaryWeights(perceptual=squeezenet))
    gt, drawn = torch.rand(2, 2, 3, SIZE, SIZE) * 2 - 1
    network = Fixed((drawn + 1) / 2)
    component.load_state_dict({"steps": component.PERCEPTUAL_FROM - 1})
    before = component.loss(network, gt, gt, draws_of(2))
    component.after_step(network, 0.0, draws_of(2))
    assert component.state_dict() == {"steps": component.PERCEPTUAL_FROM}
    assert component.loss(network, gt, gt, draws_of(2)) > before
    assert torch.equal(component.loss(Fixed((gt + 1) / 2), gt, gt, draws_of(2)), torch.tensor(0.0))


def test_crops_are_taken_alike_from_what_is_stacked_and_reach_every_place() -> None:
    places = torch.arange(36.0).view(1, 1, 6, 6).expand(200, 2, -1, -1)
    crops = random_crops(places, 3, draws_of(200))
    assert crops.shape == (200, 2, 3, 3) and torch.equal(crops[:, 0], crops[:, 1])
    assert len(crops[:, 0, 0, 0].unique()) == 16 and crops.min() == 0 and crops.max() == 35
    assert ((crops[:, :, :, 1:] - crops[:, :, :, :-1]) == 1).all()


@pytest.mark.parametrize(("period", "expected"), [(4, 2.0), (8, 2.0), (16, 1.25)])
def test_the_lattice_is_what_repeats(period: int, expected: float) -> None:
    """What repeats every 8 px does so every 16; of what repeats every 16, a quarter is left where four are averaged."""
    torch.manual_seed(0)
    tile = torch.randn(100, 1, period, period)
    tile = tile - tile.mean(dim=(2, 3), keepdim=True)
    weave = tile.repeat(1, 1, 128 // period, 128 // period)
    share = float(lattice(weave) / tile.square().mean())
    assert share == pytest.approx(expected, rel=0.1)  # but for what is coarse of it


def test_the_lattice_is_found_where_its_sign_changes_from_part_to_part() -> None:
    weave = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(64, 64)[None, None]
    turned = weave.clone()
    turned[..., 64:] *= -1  # over the whole face it averages out
    assert 0.25 < float(lattice(turned)) / float(lattice(weave)) < 0.4


def test_what_does_not_repeat_is_no_lattice() -> None:
    torch.manual_seed(0)
    weave = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(64, 64).expand(8, 3, -1, -1)
    assert abs(float(lattice(torch.randn(8, 3, 128, 128)))) < 0.001 * float(lattice(weave))
    assert float(lattice(torch.linspace(-1, 1, 128).expand(1, 3, 128, 128))) == pytest.approx(0, abs=1e-4)


def test_a_tenth_is_degraded_beyond_the_papers() -> None:
    assert sum(not get_preset(name).scales_downsample for name in ARCHIVE) / len(ARCHIVE) == 0.1


def test_it_trains_and_goes_on_where_it_was(faces: Faces, squeezenet: Path, tmp_path: Path) -> None:
    """A run in two parts is the run in one, also across the step from which the perceptual distance counts."""

    def run(folder: str, *, steps: int, resume: bool = False) -> None:
        component = regression(AuxiliaryWeights(perceptual=squeezenet))
        component.PERCEPTUAL_FROM = 2
        train(component, faces, TrainingRun("tiny", tmp_path / folder, steps, 4, evaluate_every=3, resume=resume))

    run("whole", steps=6)
    run("parts", steps=3)
    run("parts", steps=6, resume=True)
    checkpoints = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    assert [saved["component"] for saved in checkpoints] == [{"steps": 6}] * 2
    assert "perceptual" in (tmp_path / "whole" / "metrics.jsonl").read_text()
