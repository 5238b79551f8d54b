"""Several processes train what one trains: the same losses but for rounding, the same network to the bit on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bfr_models.errors import UsageError
from bfr_models.training.data import Faces
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.perceptual import PerceptualDistance
from tests.draws import draws_of
from tests.small_trainings import (
    BATCH,
    KINDS,
    RATE,
    SIZE,
    STEPS,
    in_processes,
    losses_in,
    rounding,
    train_all,
    trained_parameters,
)
from tests.support import make_rows, write_parquet


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("squeezenet") / "squeezenet.pth"
    torch.save(PerceptualDistance().state_dict(), path)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_the_parts_of_a_batch_add_up_to_its_gradient(name: str, squeezenet: Path, teacher: Path) -> None:
    """Of a loss that draws all its random numbers by face. In float32, of gradients as long as 1: see `rounding`."""
    component = KINDS[name](squeezenet, teacher)
    component.weights = type(component.weights)(**{**vars(component.weights), "gan_from": 99})
    torch.manual_seed(0)
    gt, lq = torch.rand(2, BATCH, 3, SIZE, SIZE) * 2 - 1
    network: Any = component.build()
    with torch.no_grad():
        component.prepare(network, gt)
        for parameter in network.parameters():  # the last layers of some begin at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    whole = gradient(component.loss(network, gt, lq, draws_of(BATCH)), network)
    halves = [
        gradient(component.loss(network, gt[part], lq[part], draws_of(BATCH, part=part)), network)
        for part in (range(BATCH // 2), range(BATCH // 2, BATCH))
    ]
    apart = (torch.stack(halves).mean(0) - whole).norm() / whole.norm()
    assert apart < rounding(0, 0, 1, BATCH * 3 * SIZE**2)
    assert (halves[0] - halves[1]).norm() / whole.norm() > 0.01  # what is compared is no constant


def gradient(loss: torch.Tensor, network: Any) -> torch.Tensor:
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([parameter.grad.double().flatten() for parameter in network.parameters()])


def test_a_batch_that_cannot_be_shared_equally_is_refused(
    faces: Faces, squeezenet: Path, teacher: Path, tmp_path: Path
) -> None:
    run = TrainingRun("tiny", tmp_path, STEPS, batch_size=4, accumulate=3)
    with pytest.raises(UsageError, match=r"of each share, 1 x 3 in all, got 4; .* 3$"):
        train(KINDS["prior"](squeezenet, teacher), faces, run)


@pytest.mark.long
def test_two_processes_train_each_component_as_one_does(squeezenet: Path, teacher: Path, tmp_path: Path) -> None:
    """Each reads its half of the row groups, and no rank's network differs from the other's after any step. One that
    takes its batches in two parts gives the same losses, too."""
    parquet = write_parquet(tmp_path / "faces.parquet", make_rows(96, side=2 * SIZE), group_rows=8)
    whole = train_all(parquet, squeezenet, teacher, tmp_path / "whole")
    (tmp_path / "shared").mkdir()
    first, second = in_processes(2, tmp_path / "shared", parquet, squeezenet, teacher)
    assert first["digests"] == second["digests"] and all(len(set(s)) == STEPS for s in first["digests"].values())
    assert first["faces"] + second["faces"] == whole["faces"]
    assert first["bytes"] < 0.7 * whole["bytes"] and second["bytes"] < 0.7 * whole["bytes"]
    assert first["described"] == second["described"] == whole["described"]
    train_all(parquet, squeezenet, teacher, tmp_path / "parts", accumulate=2)
    for name in KINDS:
        out = tmp_path / "whole" / name
        apart = rounding(STEPS, RATE, trained_parameters(out), BATCH * 3 * SIZE**2)
        expected = pytest.approx(losses_in(out), abs=apart)
        assert losses_in(tmp_path / "shared" / name) == expected, name
        if name != "vqgan":  # its balance of two losses is that of a part
            assert losses_in(tmp_path / "parts" / name) == expected, name
