"""How the judge's pairs are shared out, and which of them count."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from bfr_models.errors import UsageError
from bfr_models.training import judge_data
from bfr_models.training.judge import installed
from bfr_models.training.judge_data import (
    ALL,
    HELD_OUT,
    TRAIN,
    People,
    Share,
    prepare_pairs,
    require_same_networks,
)
from bfr_models.weights.files import read_card, require_weight


def test_shares_are_disjoint_and_make_the_whole() -> None:
    shares = [Share.parse(f"{number}/3") for number in (1, 2, 3)]
    assert sorted(index for share in shares for index in range(10) if share.has(index)) == list(range(10))


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/2/3", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a share such as 1/2, found"):
        Share.parse(text)


def test_pairs_of_other_networks_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_same_networks(tmp_path)
    require_same_networks(tmp_path)
    monkeypatch.setattr(judge_data, "TURNS", judge_data.TURNS[1:])
    with pytest.raises(UsageError, match="of today's networks, found others'"):
        require_same_networks(tmp_path)


def test_only_the_parts_that_are_asked_for_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Distances", "DlibRecogniser", "load_method"):
        monkeypatch.setattr(judge_data, name, lambda *_: None)
    monkeypatch.setattr(judge_data, "make_pairs", lambda *_: iter(()))
    monkeypatch.setattr(judge_data, "ITEMS", {TRAIN: (96, 96), HELD_OUT: (96, 0)})
    nobody = People(np.zeros((0, 8, 8, 3), np.uint8), ())
    people = {TRAIN: nobody, HELD_OUT: nobody}
    prepare_pairs(people, tmp_path / "retinaface.pth", tmp_path, ALL, [HELD_OUT])
    assert [file.name for file in tmp_path.glob("*.pairs")] == ["held_out-000000.pairs"]
    prepare_pairs(people, tmp_path / "retinaface.pth", tmp_path, ALL, [TRAIN, HELD_OUT])
    assert len(list(tmp_path.glob("train-*.pairs"))) == 2


def test_a_judge_that_is_calibrated_anew_is_the_one_that_is_installed_and_says_what_it_learnt_from() -> None:
    network, learnt = installed()
    card = read_card(require_weight("judge"))
    assert sum(parameter.numel() for parameter in network.parameters()) == card["parameters"]
    assert not network.training
    assert learnt["pairs"] == card["data"]["train"]["pairs"] > 0 and learnt["networks"]
