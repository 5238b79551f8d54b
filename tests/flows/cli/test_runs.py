"""Commands that inspect an existing run, as people and scripts see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import show
from flows.cli.app import app
from flows.restore_dataset import restore_without_prefect
from tests import support
from tests.generations import Ask, folder

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8))
    restore_without_prefect(support.make_run(tmp_path))
    return tmp_path / "dst"


def bfr(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout


def test_verify_ends_with_0_or_with_1_and_a_table_of_what_is_wrong(destination: Path) -> None:
    code, text = bfr("verify", destination)
    assert code == 0 and "8 rows in, 8 written + 0 rejected in 2 shards; 2 files hashed" in text
    path = next((destination / "data").iterdir())
    (extra := destination / "data" / "extra.parquet").touch()
    code, text = bfr("verify", destination)
    assert code == 1 and "file_extra" in text and "bfr vacuum" in text and "bfr repair" not in text
    extra.unlink()
    path.write_bytes(b"")
    code, text = bfr("verify", destination)
    assert code == 1 and "file_changed" in text and "bfr repair" in text
    code, text = bfr("verify", destination, "--json")
    assert code == 1 and json.loads(text)["problems"][0]["where"] == f"data/{path.name}"


def test_vacuum_explain_and_report_say_what_they_did(destination: Path) -> None:
    assert bfr("vacuum", destination, "--dry-run")[1].startswith("would remove 0 leftovers")
    code, text = bfr("explain", destination, "a.parquet#3", "--json")
    assert code == 0 and json.loads(text)[0]["id"] == "a.parquet#3"
    assert "attempt" in bfr("explain", destination, "a.parquet#3")[1]
    page = destination / "report" / "index.html"
    before = page.read_text()
    page.unlink()
    assert bfr("report", destination)[0] == 0
    assert page.read_text() == before


def test_explain_has_a_line_for_each_face(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "console", Console(soft_wrap=True, width=200))
    face = {"side": 69.76, "gain": 0.2308, "gain_spread": 0.1281, "harm": 0.0119, "identity_similarity": 0.99352,
            "outcome": "kept_original: too likely to be worse (gain 0.23 ± 0.13, harm 0.01)",
            "identity": "same person"}  # fmt: skip
    small = {"side": None, "gain": None, "outcome": "skipped: too small", "identity_similarity": None, "identity": None}
    row = {"id": "a.jpg", "state": "restored", "became": "kept as it was", "faces": [face, small], "seconds": 3.4046}
    show.explained([row])
    text = capsys.readouterr().out
    assert "a.jpg: kept as it was" in text and "3.405" in text
    line = "70 px, kept_original: too likely to be worse, gain 0.23 ± 0.13, harm 0.01, identity 0.994 (same person)"
    assert f"face 1  │ {line}" in text and "face 2  │ skipped: too small" in text and "{" not in text


@pytest.mark.parametrize("verb", [["verify"], ["vacuum"], ["explain", "x"], ["report"]], ids=lambda verb: verb[0])
def test_a_place_without_a_run_is_wrong_usage(verb: list[str], tmp_path: Path) -> None:
    name, *rest = verb
    assert bfr(name, tmp_path / "nothing", *rest)[0] == 2


def test_the_folder_of_generations_stands_for_the_current_one(ask: Ask) -> None:
    name = support.finished_generation(run := ask())["generation"]
    generation = folder(run, name)
    assert support.finished_generation(ask(seed=1))["switched"]
    assert bfr("generations", "switch", run.destination, name, "--force")[0] == 0
    code, text = bfr("verify", run.destination)
    assert code == 0 and text.startswith(f"{generation}: 5 rows in")
    assert f"nothing is damaged in {generation}" in bfr("repair", run.destination)[1]
    assert bfr("vacuum", run.destination)[1].endswith(f"; in {generation}\n")
    (row,) = json.loads(bfr("explain", run.destination, "a.parquet#1", "--json")[1])
    assert (generation / row["file"]).exists()
    (generation / "report" / "index.html").unlink()
    assert bfr("report", run.destination, "--json")[0] == 0 and (generation / "report" / "index.html").exists()


@pytest.mark.usefixtures("without_prefect")
def test_repair_of_generations_mends_the_current_one(ask: Ask) -> None:
    generation = folder(run := ask(), support.finished_generation(run)["generation"])
    next((generation / "data").iterdir()).write_bytes(b"")
    code, text = bfr("repair", run.destination)
    assert code == 0 and "planned again: 1" in text and f"kept in {generation}/damaged" in text


def test_reprocess_of_files_names_the_command_that_takes_them(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(support.encoded(support.portrait(0)))
    result = CliRunner().invoke(
        app, ["reprocess", f"{tmp_path}/scans", f"{tmp_path}/archive", "--method", "passthrough"]
    )
    assert result.exit_code == 2 and "found 1 files to pack" in result.stderr
    assert f"`bfr restore {tmp_path}/scans DST --method passthrough`" in result.stderr


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server takes half a minute to start."""
    monkeypatch.setattr("flows.repair_dataset.restore_dataset_with_fallback", restore_without_prefect)


@pytest.mark.usefixtures("without_prefect")
@pytest.mark.parametrize("command", [["repair"], ["verify", "--repair"]], ids=" ".join)
def test_repair_mends_what_verify_finds_and_ends_with_0(command: list[str], destination: Path) -> None:
    assert "nothing is damaged" in bfr("repair", destination)[1]
    next((destination / "data").iterdir()).write_bytes(b"")
    code, text = bfr("verify", destination)
    assert code == 1 and f"`bfr repair {destination}`" in text
    code, text = bfr(*command, destination)
    assert code == 0 and "planned again: 1 (plan 1)" in text and "mended; every row exactly once" in text
    assert bfr("verify", destination)[0] == 0
    code, text = bfr("repair", destination, "--json")
    assert code == 0 and json.loads(text)["found"] == [] and len(json.loads(text)["set_aside"]) == 2


@pytest.mark.usefixtures("without_prefect")
def test_what_cannot_be_mended_is_said_and_the_exit_code_is_2(destination: Path, tmp_path: Path) -> None:
    (tmp_path / "src" / "a.parquet").unlink()
    (tmp_path / "src" / "b.parquet").write_bytes(b"")
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(4, first=20))
    whole = next((destination / "data").iterdir())
    others = {path for path in (destination / "data").iterdir() if path != whole}
    whole.write_bytes(b"")
    result = CliRunner().invoke(app, ["repair", str(destination)])
    assert result.exit_code == 2 and "a.parquet to stay until" in result.stderr and "put it back" in result.stderr
    assert others <= set((destination / "data").iterdir())
