"""The perceptual distance: a distance, in closed form where it has one, with strict weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bfr_models.errors import UsageError
from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.identity_loss import one_view
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance
from bfr_models.training.registry import build_component, get_component
from tests.draws import draws_of
from tests.small_trainings import SIZE, TINY


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "squeezenet.pth"
    torch.save({name: value.half() for name, value in PerceptualDistance().state_dict().items()}, path)
    return path


def test_equal_pictures_have_no_distance_and_others_have_one(weights: Path) -> None:
    distance = load_perceptual_distance(weights)
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    assert distance(a, a) == 0
    assert distance(a, b) > 0
    assert torch.equal(distance(a, b), distance(b, a))


def test_each_layer_compares_directions_of_features_so_it_gives_at_most_four(weights: Path) -> None:
    distance = load_perceptual_distance(weights)
    a, b = -torch.ones(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    assert distance(a, b) <= 4 * 4  # four layers, unit vectors


def test_gradients_reach_the_image_and_not_the_network(weights: Path) -> None:
    distance = load_perceptual_distance(weights)
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance(image, torch.rand(1, 3, 64, 64)).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_the_estimator_learns_from_it_and_the_prior_refuses_it(weights: Path) -> None:
    gt, lq = torch.rand(2, 1, 3, SIZE, SIZE) * 2 - 1
    plain = build_component("difface", "estimator", TINY)
    with_it = build_component("difface", "estimator", TINY, AuxiliaryWeights(perceptual=weights))
    network = plain.build()
    extra = with_it.loss(network, gt, lq, draws_of(1)) - plain.loss(network, gt, lq, draws_of(1))
    draws = draws_of(1)
    restored = network((lq + 1) / 2, draws.uniform(*plain.config.luck)) * 2 - 1  # type: ignore[attr-defined]
    seen = one_view(restored, gt, draws)
    assert torch.isclose(extra, 0.01 * with_it.identity_loss.perceptual(*seen), rtol=1e-4)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="only its own loss, found perceptual"):
        get_component("difface", "prior", "face128", AuxiliaryWeights(perceptual=weights))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="SqueezeNet"):
        load_perceptual_distance(tmp_path / "other.pth")
    with pytest.raises(UsageError, match="none that read"):
        load_perceptual_distance(tmp_path / "absent.pth")
