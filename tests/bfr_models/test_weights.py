"""A weight file is whole and fits, or it is not loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bfr_models.errors import BfrError
from bfr_models.weights.files import ASSETS
from bfr_models.weights.tensors import load_weights, parameters_of, read_card, save_weights


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 3))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    original, path = network(), tmp_path / "weights" / "tiny.safetensors"
    save_weights(parameters_of(original), {"name": "tiny"}, path)
    return original, path


def test_parameters_come_back_as_their_fp16_values(saved: tuple[nn.Module, Path]) -> None:
    original, path = saved
    loaded = network()
    sha256 = load_weights(loaded, path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.requires_grad
        assert torch.equal(parameter, original.get_parameter(name).half().float())


def test_the_card_describes_the_file(saved: tuple[nn.Module, Path]) -> None:
    _, path = saved
    card = read_card(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card == {"name": "tiny", "file": "tiny.safetensors", "bytes": path.stat().st_size, "sha256": sha256}


def test_saving_the_same_weights_gives_the_same_bytes(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    original, path = saved
    save_weights(parameters_of(original), {}, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""],
    ids=["truncated", "one bit", "empty"],
)  # fmt: skip
def test_a_damaged_file_is_refused(saved: tuple[nn.Module, Path], damage: Callable[[bytes], bytes]) -> None:
    _, path = saved
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BfrError, match=r"tiny\.safetensors: expected sha256 .* the file is damaged"):
        load_weights(network(), path)


def without_the_last(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(parameters.items())[:-1])


def with_one_more(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**parameters, "3.scale": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [(without_the_last, r"missing \['2\.bias'\]"), (with_one_more, r"unexpected \['3\.scale'\]")],
)
def test_parameters_that_are_missing_or_too_many_are_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, tmp_path: Path
) -> None:
    save_weights(change(parameters_of(network())), {}, tmp_path / "other.safetensors")
    with pytest.raises(BfrError, match=message):
        load_weights(network(), tmp_path / "other.safetensors")


def test_parameters_of_another_shape_are_refused(saved: tuple[nn.Module, Path]) -> None:
    with pytest.raises(BfrError, match=r"0\.weight: expected shape \(8, 3, 3, 3\), found \(4, 3, 3, 3\)"):
        load_weights(network(width=8), saved[1])


@pytest.mark.parametrize("card", [None, "{", "{}", "[]"])
def test_weights_without_a_card_that_reads_are_refused(saved: tuple[nn.Module, Path], card: str | None) -> None:
    path = saved[1].with_suffix(".json")
    if card is None:
        path.unlink()
    else:
        path.write_text(card)
    with pytest.raises(BfrError, match=r"expected a card beside tiny\.safetensors"):
        load_weights(network(), saved[1])


def test_a_card_without_its_weights_is_no_reason_for_a_traceback(saved: tuple[nn.Module, Path]) -> None:
    saved[1].unlink()
    with pytest.raises(BfrError, match=r"expected weights at .*tiny\.safetensors, found none"):
        load_weights(network(), saved[1])


@pytest.mark.parametrize("card", sorted(ASSETS.glob("*.json")), ids=lambda path: path.stem)
def test_weights_in_the_package_are_those_of_their_cards(card: Path) -> None:
    written = json.loads(card.read_text())
    data = (ASSETS / written["file"]).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (written["sha256"], written["bytes"])
