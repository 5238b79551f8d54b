"""`bfr curate` as a command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.restore_dataset import restore_without_prefect
from tests import support

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    support.write_parquet(
        tmp_path / "src" / "a.parquet", [row | {"n": i} for i, row in enumerate(support.make_rows(4))]
    )
    restore_without_prefect(support.make_run(tmp_path, recogniser="none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_curates_and_says_what_each_step_left(made: Path) -> None:
    result = CliRunner().invoke(app, ["curate", "dst", "out", "--where", "n > 0", "--top-k", "2", "--by", "n"])
    assert result.exit_code == 0
    assert "3  n > 0" in result.stdout and "2  not of the 2 highest n" in result.stdout
    assert f"report: {made}/out/report/index.html" in result.stdout
    again = CliRunner().invoke(app, ["curate", "dst", "out", "--where", "n > 0", "--top-k", "2", "--by", "n", "--json"])
    assert json.loads(again.stdout) == json.loads((made / "out" / "curation.json").read_text())


def test_a_wrong_condition_is_wrong_usage(made: Path) -> None:
    result = CliRunner().invoke(app, ["curate", "dst", "out", "--where", "m > 0", "--json"])
    assert result.exit_code == 2
    assert "expected a condition over the columns n, id, " in json.loads(result.stdout)["error"]
    assert not (made / "out").exists()
