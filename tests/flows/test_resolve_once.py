"""A restore resolves its names at most twice: for the command, and for the flow, which is given plain settings."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bfr_models.faces.detectors import choose_detector
from bfr_models.faces.recognisers import choose_recogniser
from bfr_models.metrics.measures import choose_measures
from bfr_models.registry import resolve_method
from flows import restore_dataset as recipe
from flows.cli.app import app
from tasks.config.resolve import resolve_run
from tests import support

DECIDING = (resolve_method, choose_recogniser, choose_measures, choose_detector)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of each function that resolves a name, whichever module calls it."""
    calls = Counter[str]()

    def counted(decide: Any) -> Any:
        def count(*arguments: Any, **settings: Any) -> Any:
            calls[decide.__name__] += 1
            return decide(*arguments, **settings)

        return count

    for decide in DECIDING:
        name, counting = decide.__name__, counted(decide)
        for module in [*sys.modules.values()]:
            if module.__name__ != __name__ and getattr(module, "__dict__", {}).get(name) is decide:
                monkeypatch.setattr(module, name, counting)
    return calls


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pytest.importorskip("dlib")
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    return tmp_path


def test_names_are_decided_in_one_place(decided: Counter[str], photos: Path) -> None:
    resolve_run(support.make_run(photos, input="photos", detector="dlib"))
    assert decided == dict.fromkeys((decide.__name__ for decide in DECIDING), 1)


def test_the_recipe_decides_them_once(decided: Counter[str], photos: Path) -> None:
    record = recipe.restore_without_prefect(support.make_run(photos, input="photos", detector="dlib"))
    assert record["totals"]["restored"] == 4
    assert decided == dict.fromkeys((decide.__name__ for decide in DECIDING), 1)


@pytest.mark.parametrize("source", ["src", "files"])
@pytest.mark.usefixtures("prefect_server", "signals")
def test_a_command_and_its_flow_decide_them_once_each(decided: Counter[str], photos: Path, source: str) -> None:
    """Whether SRC is a dataset or files, which are packed into the run first."""
    (photos / "files").mkdir()
    (photos / "files" / "a.png").write_bytes(support.encoded(support.portrait(0)))
    places = [str(photos / source), str(photos / "dst")]
    words = ["--method", "passthrough", "--engine", "local", "--input", "photos", "--detector", "dlib"]
    assert CliRunner().invoke(app, ["restore", *places, *words]).exit_code == 0
    assert decided.keys() == {decide.__name__ for decide in DECIDING} and max(decided.values()) <= 2
