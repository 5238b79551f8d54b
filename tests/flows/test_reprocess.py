"""Generations: new files go into the current one, other settings make another, and a worse one is held back."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bfr_models.errors import BfrError, UsageError
from flows import reprocess as recipe
from flows import restore_dataset
from flows.orchestration.run_page import DEGRADED, HELD_BACK, SWITCHED
from flows.reprocess import reprocess_without_prefect
from tasks import compare_generations as comparing
from tasks.config.resolve import ResolvedRun, resolve_run
from tasks.generations import (
    choose_generation,
    expire_generations,
    list_generations,
    switch_generation,
)
from tasks.runs.finished_run import FinishedRun, Rows
from tasks.runs.source import open_source
from tests import support
from tests.generations import Ask, current, folder, interrupted

Announced = tuple[Any, ...]


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Announced]:
    """What a flow run would send to Prefect: `record` for a summary, and events with the files they name."""
    sent: list[Announced] = []

    def announce(event: str, _destination: str, payload: dict[str, Any]) -> None:
        sent.append((event, *([payload] if "left_out" in payload else [])))

    for module in (recipe, restore_dataset):
        monkeypatch.setattr(module, "announce", announce)
    monkeypatch.setattr(restore_dataset, "show_record", lambda record: sent.append(("record",)))
    return sent


def test_the_first_generation_becomes_current_and_is_a_run_like_any_other(ask: Ask) -> None:
    outcome = reprocess_without_prefect(run := ask())
    name = outcome["generation"]
    assert name.startswith("0001-passthrough-") and current(run) == name == outcome["current"]
    assert outcome["switched"] and outcome["comparison"] is None
    support.assert_whole(folder(run, name), 5)
    assert [row["state"] for row in list_generations(run.destination)] == ["current"]


def test_the_same_settings_again_restore_only_what_is_new(ask: Ask, tmp_path: Path) -> None:
    name = reprocess_without_prefect(run := ask())["generation"]
    before = support.snapshot(folder(run, name) / "data")
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(3, first=20))
    outcome = reprocess_without_prefect(ask(batch_size=2))  # it decides nothing of the output
    assert outcome["generation"] == name and not outcome["switched"]
    after = support.snapshot(folder(run, name) / "data")
    assert before.items() <= after.items() and len(after) == len(before) + 1
    support.assert_whole(folder(run, name), 8)


def test_rows_of_deleted_and_changed_files_are_retired(ask: Ask, tmp_path: Path) -> None:
    name = reprocess_without_prefect(run := ask())["generation"]
    (tmp_path / "src" / "a.parquet").unlink()
    record = reprocess_without_prefect(run)["run"]
    assert record["totals"]["rows"] == 2
    support.assert_whole(folder(run, name), 2)
    assert {row.partition("#")[0] for row in support.read_ids(folder(run, name) / "data")} == {"b.parquet"}


def test_an_empty_source_is_an_error_not_an_empty_dataset(ask: Ask, tmp_path: Path) -> None:
    name = reprocess_without_prefect(run := ask())["generation"]
    for path in (tmp_path / "src").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"expected files at .*, found nothing"):
        reprocess_without_prefect(run)
    support.assert_whole(folder(run, name), 5)


def test_other_settings_make_a_generation_beside_the_old_one(ask: Ask) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    before = support.snapshot(folder(ask(), first))
    outcome = reprocess_without_prefect(run := ask(seed=1))
    second = outcome["generation"]
    assert second.startswith("0002-passthrough-") and second[5:] != first[5:]
    assert current(run) == second and outcome["switched"]
    assert support.snapshot(folder(run, first)) == before
    found = json.loads(Path(run.destination, "comparisons", f"{first}..{second}.json").read_text())
    assert (found["rows"], found["reasons"], found["rejected"]) == (5, [], [0, 0])
    assert second in Path(run.destination, "comparisons", f"{first}..{second}.html").read_text()


def test_the_dataset_of_a_destination_is_its_current_generation(ask: Ask) -> None:
    reprocess_without_prefect(ask())
    second = reprocess_without_prefect(run := ask(seed=1))["generation"]
    files = [store.url(file.path) for store, file in open_source(run.destination)]
    assert files == sorted(map(str, (folder(run, second) / "data").glob("*.parquet"))) != []


def test_a_half_finished_generation_is_resumed_not_doubled(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    reprocess_without_prefect(ask())
    finish = recipe.restore_phases

    def killed(resolved: ResolvedRun, *_: Any, **__: Any) -> Any:
        interrupted(ask(seed=1), resolved.run.destination.rpartition("/")[2], 1)
        raise BfrError("killed")

    monkeypatch.setattr(recipe, "restore_phases", killed)
    with pytest.raises(BfrError, match="killed"):
        reprocess_without_prefect(ask(seed=1))
    first, second = list_generations(ask().destination)
    assert (first["state"], second["state"]) == ("current", "unfinished")
    done = support.snapshot(folder(ask(), second["name"]) / "commits")
    assert len(done) == 1
    with pytest.raises(UsageError, match="expected a finished generation"):
        switch_generation(ask().destination, second["name"], force=True)
    assert expire_generations(ask().destination, 1) == []  # the current one, and one in progress

    monkeypatch.setattr(recipe, "restore_phases", finish)
    outcome = reprocess_without_prefect(ask(seed=1))
    assert outcome["current"] == second["name"]
    assert done.items() <= support.snapshot(folder(ask(), second["name"]) / "commits").items()


@pytest.mark.usefixtures("faulty")
def test_a_generation_that_loses_identity_waits_until_it_is_forced(ask: Ask) -> None:
    old = reprocess_without_prefect(ask(recogniser="dlib", gt_column="image"))["generation"]
    run = ask(recogniser="dlib", gt_column="image", method="faulty", max_identity_drop=0.0001)  # mirrored faces
    outcome = reprocess_without_prefect(run)
    new = outcome["generation"]
    assert outcome["current"] == old == current(run) and not outcome["switched"]
    assert "identity_similarity_gt fell by" in outcome["held_back"][0] and "at most 0.0001" in outcome["held_back"][0]
    assert reprocess_without_prefect(run)["generation"] == new, "the same one is tried again"
    listed = list_generations(run.destination)
    assert [(row["state"], bool(row["held_back"])) for row in listed] == [("current", False), ("finished", True)]
    with pytest.raises(UsageError, match=r"was held back: identity_similarity_gt fell by.*--force"):
        switch_generation(run.destination, new)
    assert switch_generation(run.destination, new, force=True).generation == new == current(run)


def test_a_generation_of_which_identity_cannot_be_measured_any_more_waits(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, measured = reprocess_without_prefect(ask(recogniser="dlib"))["generation"], comparing.subset_statistics

    def unmeasured(run: FinishedRun, rows: Rows) -> dict[str, Any]:
        lost = {"identity_similarity": {"why": "no face"}, "identity_similarity_gt": {"why": "no face"}}
        return measured(run, rows) | (lost if run.record["seed"] == 1 else {})

    monkeypatch.setattr(comparing, "subset_statistics", unmeasured)
    outcome = reprocess_without_prefect(ask(recogniser="dlib", seed=1))
    assert outcome["current"] == old and "measured in no row now, by the same" in outcome["held_back"][0]
    outcome = reprocess_without_prefect(ask(recogniser="none", seed=2))
    assert outcome["switched"], "another recogniser, or none, was asked for"


@pytest.mark.usefixtures("faulty")
def test_a_drop_within_the_threshold_passes(ask: Ask) -> None:
    reprocess_without_prefect(ask(recogniser="dlib"))
    outcome = reprocess_without_prefect(ask(recogniser="dlib", method="faulty", max_identity_drop=2, max_fid_rise=1e9))
    assert outcome["switched"]
    found = json.loads(Path(outcome["comparison"]).with_suffix(".json").read_text())
    before, after = (found["statistics"][side]["identity_similarity"]["mean"] for side in ("old", "new"))
    assert after < before


def test_an_interrupted_update_of_the_current_generation_stops_no_later_one(ask: Ask, tmp_path: Path) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))  # 3 before
    interrupted(ask(), first, 1)
    outcome = reprocess_without_prefect(ask(seed=1))
    assert outcome["switched"] and outcome["current"] != first
    found = json.loads(Path(outcome["comparison"]).with_suffix(".json").read_text())
    assert found["rows"] == 5, "the rows that the old one had when it was last finished"


@pytest.mark.usefixtures("faulty")
def test_a_current_generation_without_rows_stops_no_later_one(ask: Ask, tmp_path: Path) -> None:
    for path in (tmp_path / "src").iterdir():
        path.rename(path.with_name(f"raises-{path.name}"))
    assert reprocess_without_prefect(ask(method="faulty"))["run"]["totals"]["restored"] == 0
    outcome = reprocess_without_prefect(ask())
    assert outcome["switched"] and outcome["run"]["totals"]["restored"] == 5


@pytest.mark.usefixtures("faulty")
def test_a_generation_that_rejects_more_waits(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "src" / "a.parquet").rename(tmp_path / "src" / "raises.parquet")  # 3 of 5 rows
    first = reprocess_without_prefect(ask())["generation"]
    assert reprocess_without_prefect(ask(method="faulty"))["held_back"] == [
        "rejected rows rose from 0.0% to 60.0%; at most 5.0% more are allowed"
    ]
    assert current(ask()) == first
    assert reprocess_without_prefect(ask(method="faulty", max_rejects=0.6))["switched"]


def test_readers_see_no_row_twice_while_the_current_generation_is_updated(ask: Ask, tmp_path: Path) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(3, first=20))  # another one
    interrupted(ask(), first, 1)
    before = support.read_table(folder(ask(), first) / "data")["id"].to_pylist()
    for url in (ask().destination, str(folder(ask(), first))):
        seen = [
            name for store, file in open_source(url) for name in pq.read_table(store.url(file.path))["id"].to_pylist()
        ]
        assert sorted(seen) == sorted(before) and len(seen) == 5
    reprocess_without_prefect(ask())
    after = [store.url(file.path) for store, file in open_source(ask().destination)]
    assert after == sorted(map(str, (folder(ask(), first) / "data").glob("*.parquet")))


def test_a_damaged_file_is_left_out_and_tried_again(ask: Ask, tmp_path: Path, announced: list[Announced]) -> None:
    half = tmp_path / "src" / "c.parquet"
    whole = support.write_parquet(tmp_path / "c.parquet", support.make_rows(3, first=20)).read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    name = reprocess_without_prefect(ask())["generation"]
    support.assert_whole(folder(ask(), name), 5)
    (warning,) = support.read_record(folder(ask(), name))["warnings"]
    assert warning.startswith(f"left out: {half} does not read")
    assert announced == [("record",), (DEGRADED, {"left_out": (warning,)}), (SWITCHED,)]
    half.write_bytes(whole)
    assert reprocess_without_prefect(ask())["run"]["warnings"] == []
    support.assert_whole(folder(ask(), name), 8)


def test_the_rows_of_a_file_stay_while_it_is_damaged(ask: Ask, tmp_path: Path) -> None:
    name = reprocess_without_prefect(ask())["generation"]
    before = support.snapshot(folder(ask(), name) / "data")
    (tmp_path / "src" / "a.parquet").write_bytes(b"PAR1, the rest is on its way")
    record = reprocess_without_prefect(ask())["run"]
    assert record["totals"]["rows"] == 5 and "a.parquet does not read" in record["warnings"][0]
    assert support.snapshot(folder(ask(), name) / "data") == before


def test_new_files_are_taken_right_after_an_interrupted_run(ask: Ask, tmp_path: Path) -> None:
    name = choose_generation(resolve_run(ask()))
    interrupted(ask(), name, 1)
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(3, first=20))
    assert reprocess_without_prefect(ask())["run"]["totals"]["restored"] == 8


@pytest.mark.usefixtures("faulty")
def test_a_night_without_new_files_compares_and_announces_nothing(
    ask: Ask, tmp_path: Path, announced: list[Announced], monkeypatch: pytest.MonkeyPatch
) -> None:
    dlib = partial(ask, recogniser="dlib", gt_column="image", max_identity_drop=0.0001)
    reprocess_without_prefect(dlib())
    waits = reprocess_without_prefect(dlib(method="faulty"))
    assert announced == [("record",), (SWITCHED,), ("record",), (HELD_BACK,)]
    del announced[:]
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "_compare", None)
        again = reprocess_without_prefect(dlib(method="faulty"))
    assert announced == []
    assert (again["held_back"], again["comparison"]) == (waits["held_back"], waits["comparison"])
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(3, first=20))
    reprocess_without_prefect(dlib(method="faulty"))
    assert announced == [("record",), (HELD_BACK,)]
    (reason,) = reprocess_without_prefect(dlib(method="faulty", max_identity_drop=2))["held_back"]
    assert reason.startswith("fd_dlib"), "other thresholds, another judgement"
