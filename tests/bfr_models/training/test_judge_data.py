"""How the judge's pairs are shared out, and which of them count."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from bfr_models.training import judge_data
from bfr_models.training.judge_data import Share, require_same_networks


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
