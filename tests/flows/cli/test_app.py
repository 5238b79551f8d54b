"""The command line as people and scripts see it: exit codes, one JSON document, errors in plain words."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from pydantic import BaseModel
from typer.testing import CliRunner

from bfr_models.errors import UsageError
from flows.cli.app import app
from flows.cli.command import run as command
from flows.cli.options import settings_from
from tasks.config.curate import CurateRun
from tasks.config.degrade import DegradeRun
from tasks.config.evaluate import EvaluateRun
from tasks.config.reprocess import ReprocessRun
from tasks.config.restore import RestoreRun
from tasks.config.score import ScoreRun
from tests import support

Bfr = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def bfr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bfr:
    """Runs a verb in a folder with a dataset `src` of twelve rows."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def restore(bfr: Bfr, prefect_server: str) -> Bfr:
    """`bfr restore src dst`, on threads of this process."""
    return lambda *arguments: bfr("restore", "src", "dst", "--engine", "local", "--shard-rows", 4, *arguments)


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield (*path, name)
        yield from verbs(inner, (*path, name))


@pytest.mark.parametrize("verb", [(), *verbs(typer.main.get_command(app))], ids=" ".join)
def test_every_verb_has_help(verb: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*verb, "--help"])
    assert result.exit_code == 0 and "Usage:" in result.stdout


def test_a_run_ends_with_0_and_prints_one_json_document(restore: Bfr, tmp_path: Path) -> None:
    result = restore("--method", "passthrough", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == support.read_record(tmp_path / "dst")
    assert "12/12 rows" in result.stderr


def test_a_finished_run_is_not_touched_again(restore: Bfr, tmp_path: Path) -> None:
    first = restore("--method", "passthrough")
    before = support.snapshot(tmp_path / "dst")
    second = restore("--method", "passthrough")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "12 rows in = 12 written (12 restored, 0 kept as they were) + 0 rejected, 3 shards" in second.stdout
    assert support.snapshot(tmp_path / "dst") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gfpgun"], "unknown method 'gfpgun'; known: passthrough"),
        (["--method", "passthrough", "--preset", "p"], "unknown preset of passthrough 'p'; known: face128"),
        (["--method", "passthrough", "--steps", 5], "unknown option 'steps' of passthrough"),
        (["--method", "difface", "--sampler", "euler"], "unknown sampler 'euler'; known: ddim, dpm++"),
        (["--method", "passthrough", "--column", "photo"], "image column 'photo', found the columns image"),
        (["--method", "passthrough", "--format", "gif"], "expected --format png or webp or jpeg, found 'gif'"),
        (["--method", "passthrough", "--batch-size", "many"], "expected a whole number of at least 1, or auto"),
        (["--method", "passthrough", "--min-identity", "celebs"], "or one of the profiles celeba, lfw, childhood"),
        (["--config", "gate.yaml", "--recogniser", "none"], "a face recogniser for --min-identity wild, found none"),
        ([], "error: expected --method (restoration method; `bfr methods` lists them), found none\n"),
        (["--config", "none.yaml"], "expected a YAML file of settings at none.yaml"),
        (["--config", "list.yaml"], "expected a YAML file of settings at list.yaml"),
        (["--config", "wrong.yaml"], "expected a setting of this command, found 'stride'"),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_a_message_in_plain_words(
    arguments: list[object], message: str, restore: Bfr, tmp_path: Path
) -> None:
    (tmp_path / "list.yaml").write_text("- method")
    (tmp_path / "gate.yaml").write_text("{method: passthrough, min_identity: wild}")
    (tmp_path / "wrong.yaml").write_text("{method: passthrough, stride: 5}")
    result = restore(*arguments, "--json")
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    told = json.loads(result.stdout)
    assert told["exit_code"] == 2 and told["error"] in result.stderr
    assert not (tmp_path / "dst" / "plan").exists()


def test_a_flag_that_does_not_exist_ends_with_2(restore: Bfr) -> None:
    result = restore("--methud", "passthrough")
    assert result.exit_code == 2 and "No such option" in result.stderr and not result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("restore --json src", "Missing argument 'DST'."),
        ("restore src dst --seed x --json", "Invalid value for '--seed'"),
        ("fid a b --jason --json", "No such option: --jason"),
        ("fid a b c --json", "Got unexpected extra argument"),
        ("resore src dst --json", "No such command 'resore'."),
        ("weights fetchh --json", "No such command 'fetchh'."),
        ("--jason fid --json", "No such option: --jason"),
    ],
)
def test_what_typer_finds_wrong_is_one_json_document_too(arguments: str, message: str, bfr: Bfr) -> None:
    result = bfr(*arguments.split())
    told = json.loads(result.stdout)
    assert told["exit_code"] == result.exit_code == 2 and message in told["error"] and "Error" in result.stderr
    assert set(told) == {"error", "exit_code"}


def test_a_source_that_is_not_there_ends_with_2(bfr: Bfr, prefect_server: str) -> None:
    result = bfr("restore", "nowhere", "dst", "--method", "passthrough", "--engine", "local")
    assert result.exit_code == 2 and "nowhere" in result.stderr and "Traceback" not in result.stderr


def test_more_rejects_than_allowed_end_with_3_and_the_limit_may_be_raised_later(restore: Bfr, tmp_path: Path) -> None:
    rows = support.make_rows(12)
    rows[4]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    command = ("--method", "passthrough", "--max-rejects")
    assert [restore(*command, limit).exit_code for limit in (0.08, 0.09, 0.01)] == [3, 0, 3]


@pytest.mark.parametrize("debug", [False, True])
def test_a_run_that_fails_ends_with_1_and_says_how_to_go_on(
    debug: bool, restore: Bfr, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr("tasks.worker.shard_worker.commit_shard", full)
    monkeypatch.setattr("tasks.engine.dispatch.PAUSE_SECONDS", 0.0)
    result = restore("--method", "passthrough", *(["--debug"] if debug else []))
    assert result.exit_code == 1
    assert "3 of 3 shards could not be done" in result.stderr and "disk full" in result.stderr
    assert ("Traceback" in result.stderr) == debug


def test_an_interrupted_run_ends_with_130_and_goes_on_with_the_same_command(
    restore: Bfr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("flows.restore_dataset.finish_run", interrupted)
        result = restore("--method", "passthrough")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr and "Traceback" not in result.stderr
    assert restore("--method", "passthrough").exit_code == 0
    support.assert_whole(tmp_path / "dst", 12)


def test_a_second_signal_does_not_disturb_the_putting_away() -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            steps.append("the first was not heard")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
                steps.append("put away")

    with pytest.raises(typer.Exit) as ended:
        command(work, print, False, False)
    assert ended.value.exit_code == 130 and steps == ["put away"] * 2


def test_flags_win_over_the_settings_file(restore: Bfr, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{method: difface, seed: 3, format: webp, options: {steps: 2, eta: 0.1}}")
    plain = ("--config", "run.yaml", "--method", "passthrough")
    refused = restore(*plain)
    assert refused.exit_code == 2 and "unknown option 'steps' of passthrough" in refused.stderr
    (tmp_path / "run.yaml").write_text("{method: difface, seed: 3, format: webp}")
    record = json.loads(restore(*plain, "--seed", 4, "--json").stdout)
    assert (record["method"]["name"], record["seed"], record["arguments"]["format"]) == ("passthrough", 4, "webp")


def settings(verb: str, model: type[BaseModel], *flags: str, config: Path | None = None) -> dict[str, Any]:
    """What a verb's flags come to, without its work."""
    command: Any = typer.main.get_command(app)
    return settings_from(command.commands[verb].make_context(verb, list(flags)), model, config)


def test_options_of_the_file_and_of_flags_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{method: difface, options: {steps: 2, eta: 0.1}}")
    found = settings("restore", RestoreRun, "a", "b", "--steps", "4", config=tmp_path / "run.yaml")
    assert found == {"source": "a", "destination": "b", "method": "difface", "options": {"steps": 4, "eta": 0.1}}


def test_flags_are_named_as_fields_and_lists_are_split_at_commas() -> None:
    flags = ("--input", "photos", "--format", "webp", "--metrics", "niqe,lmd", "--retry-rejected", "", "--keep-input")
    found = settings("restore", RestoreRun, "a", "b", *flags)
    assert (found["input"], found["format"], found["metrics"]) == ("photos", "webp", ["niqe", "lmd"])
    assert found["keep_input"] is True and "retry_rejected" not in found


@pytest.mark.parametrize(
    ("flags", "effort", "quality"),
    [
        ((), "best", 80),
        (("--quality", "draft"), "draft", 80),
        (("--quality", "60"), "best", 60),
        (("--quality", "60", "--quality", "draft"), "draft", 60),
    ],
)
def test_quality_is_a_word_a_number_or_both(flags: tuple[str, ...], effort: str, quality: int, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{method: difface, effort: best, quality: 80}")
    run = RestoreRun(**settings("restore", RestoreRun, "/a", "/b", *flags, config=tmp_path / "run.yaml"))
    assert (run.effort, run.quality) == (effort, quality)


@pytest.mark.parametrize(("first", "second"), [("draft", "best"), ("60", "70")])
def test_two_qualities_of_one_kind_are_refused(first: str, second: str, restore: Bfr) -> None:
    refused = restore("--method", "difface", "--quality", first, "--quality", second)
    assert refused.exit_code == 2
    told = f"expected --quality with one word and one number at most, found {first} and {second}"
    assert told in refused.stderr


def test_another_word_for_quality_is_refused_with_those_that_are_known(restore: Bfr) -> None:
    refused = restore("--method", "difface", "--quality", "standart")
    assert refused.exit_code == 2
    assert "expected --quality draft, standard, best, or 1 to 100 for webp and jpeg, found 'standart'" in refused.stderr
    assert "did you mean 'standard'?" in refused.stderr


def test_a_setting_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{seed: 1, method: estimator, options: {eta: 0.1}, shard_rows: 8}")
    flags = ("--set", "seed=2", "--set", "method=difface", "--set", "options.steps=4", "--method", "passthrough")
    found = settings("reprocess", ReprocessRun, "a", "b", *flags, config=tmp_path / "run.yaml")
    assert (found["seed"], found["method"], found["shard_rows"]) == (2, "passthrough", 8)
    assert found["options"] == {"eta": 0.1, "steps": 4}
    found = settings("reprocess", ReprocessRun, "a", "b", *flags, "--set", "options={sampler: ddim, steps: 9}")
    assert found["options"] == {"sampler": "ddim", "steps": 4}  # what names one option wins over what names them all


@pytest.mark.parametrize(
    ("setting", "told"),
    [("gt_column=[", "expected a value in YAML for --set gt_column, found '['"), ("options=4", "options in --set")],
)
def test_a_setting_that_is_no_yaml_or_no_options_is_wrong_usage(setting: str, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        settings("reprocess", ReprocessRun, "a", "b", "--set", setting)


def test_a_settings_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"method: \xff")
    with pytest.raises(UsageError, match="expected a YAML file of settings"):
        settings("restore", RestoreRun, "a", "b", config=tmp_path / "run.yaml")


@pytest.mark.parametrize("model", [RestoreRun, EvaluateRun, CurateRun, ScoreRun, DegradeRun])
def test_flags_that_are_not_given_leave_the_defaults_of_the_model(model: type[BaseModel]) -> None:
    verb = model.__name__.removesuffix("Run").lower()
    required = {"restore": ["--method", "m"], "evaluate": ["--methods", "m"]}.get(verb, [])
    found = settings(verb, model, "/a", "/b", *required)
    assert set(model(**found).model_dump(exclude_defaults=True)) == {
        "source", "destination", *(flag.removeprefix("--") for flag in required[:1])
    }  # fmt: skip


def test_the_version_is_that_of_the_distribution(bfr: Bfr) -> None:
    result = bfr("--version")
    assert (result.exit_code, result.stdout) == (0, f"bfr {version('bfr-pipeline')}\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["methods"], {"passthrough", "difface"}),
        (["degrade", "src", "pairs", "--size", "64"], {"rows", "files", "skipped"}),
        (["pack", "src", "packed"], {"rows", "files", "skipped"}),
        (["doctor"], {"machine", "ray", "prefect"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_verb_prints_exactly_one_json_document(arguments: list[str], expected: set[str], bfr: Bfr) -> None:
    result = bfr(*arguments, "--json")
    document = json.loads(result.stdout)
    names = document if isinstance(document, dict) else {entry["name"] for entry in document}
    assert expected <= set(names)
    assert result.exit_code in (0, 1) if arguments == ["doctor"] else result.exit_code == 0


def test_a_folder_of_images_goes_in_and_comes_out(bfr: Bfr, prefect_server: str, tmp_path: Path) -> None:
    (tmp_path / "scans" / "a").mkdir(parents=True)
    for name, number in {"1 é.png": 1, "a/2#.png": 2}.items():
        (tmp_path / "scans" / name).write_bytes(support.encoded(support.portrait(number)))
    (tmp_path / "scans" / "3").write_bytes(b"no image")
    asked = ("restore", "scans", "out", "--method", "passthrough", "--engine", "local", "--input", "faces")
    first = bfr(*asked)
    assert first.exit_code == 0, first.output
    assert "left out: '3': not an image by its extension" in first.stderr
    assert "packed 2 images of" in first.stderr and "2 rows in = 2 written" in first.stdout
    again = bfr(*asked)
    assert again.exit_code == 0 and "2 files of" in again.stderr and "none is new or changed" in again.stderr
    exported = bfr("export", "out", "files", "--json")
    assert exported.exit_code == 0, exported.output
    (rate,) = re.findall(r"2/2 rows, ([0-9.]+) rows/s", exported.stderr)
    assert float(rate) < 1000  # its clock starts before its first image
    report = json.loads(exported.stdout)
    assert (report["images"], report["unchanged"], report["written"]) == (2, 2, 4)
    assert (tmp_path / "files" / "a" / "2#.png.json").exists()
    refused = bfr("export", "out", "scans")
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    (tmp_path / "scans" / "1 é.png").unlink()
    assert bfr("export", "out", "files", "--only", "approved").exit_code == 2
