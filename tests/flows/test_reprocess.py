"""Generations: what is new goes into the current one, other settings make another, and the worse one waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bfr_models.errors import BfrError, UsageError
from flows import reprocess as recipe
from flows import restore_dataset
from flows.cli.app import app
from flows.orchestration.run_page import DEGRADED, HELD_BACK, SWITCHED
from flows.reprocess import reprocess_without_prefect
from tasks import compare_generations as comparing
from tasks import generations
from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import resolve_run
from tasks.generations import (
    choose_generation,
    expire_generations,
    list_generations,
    rollback_generation,
    switch_generation,
)
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.pointer import POINTER, Pointer, address, read_pointer
from tasks.runs.source import open_source
from tasks.storage.store import Store
from tests import support

Ask = Callable[..., ReprocessRun]
Announced = tuple[Any, ...]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The settings of a run from `src`, of two files with 3 and 2 rows, to `dst`."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(3))
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(2, first=8))
    return partial(support.make_reprocess_run, tmp_path, recogniser="none")


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Announced]:
    """What a flow run would send to Prefect: records by that word, events with what they say of files."""
    sent: list[Announced] = []

    def announce(event: str, _destination: str, payload: dict[str, Any]) -> None:
        sent.append((event, *([payload] if "left_out" in payload else [])))

    for module in (recipe, restore_dataset):
        monkeypatch.setattr(module, "announce", announce)
    monkeypatch.setattr(restore_dataset, "show_record", lambda record: sent.append(("record",)))
    return sent


def current(run: ReprocessRun) -> str | None:
    return json.loads(Path(run.destination, POINTER).read_text())["generation"]


def folder(run: ReprocessRun, name: str) -> Path:
    return Path(run.destination, "generations", name)


def interrupted(run: ReprocessRun, name: str, shards: int) -> None:
    """What a run leaves that was killed after it had committed so many shards."""
    inner = run.generation(address(run.destination, name))
    with worker_pool(resolve_run(inner)) as pool:
        restore_shards(pool, list(support.plan_run(inner).todo)[:shards], lambda record: None)


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
    with pytest.raises(UsageError, match=r"expected \*\.parquet files"):
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

    def killed(run: Any, *_: Any, **__: Any) -> Any:
        interrupted(ask(seed=1), run.destination.rpartition("/")[2], 1)
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


def test_rollback_lasts(ask: Ask) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    second = reprocess_without_prefect(run := ask(seed=1))["generation"]
    assert rollback_generation(run.destination).generation == first == current(run)
    with pytest.raises(UsageError, match=f"expected a generation before {first}"):
        rollback_generation(run.destination)
    outcome = reprocess_without_prefect(run)  # the schedule goes on, with the settings of the second
    assert outcome["held_back"] == ["it was rolled back"] and current(run) == first
    switch_generation(run.destination, second, force=True)
    assert reprocess_without_prefect(run)["held_back"] == [] and current(run) == second


def test_a_rollback_to_an_interrupted_update_is_refused(ask: Ask, tmp_path: Path) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    second = reprocess_without_prefect(ask(seed=1))["generation"]
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(1, first=20))
    interrupted(ask(), first, 0)
    with pytest.raises(UsageError, match=f"expected a finished generation, found that {first} is not"):
        rollback_generation(ask().destination)
    assert current(ask()) == second


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


def test_old_generations_expire_and_the_current_one_never(ask: Ask) -> None:
    names = [reprocess_without_prefect(ask(seed=seed, keep_generations=9))["generation"] for seed in range(4)]
    run = ask()
    with pytest.raises(UsageError, match=f"expected a comparison of {names[0]} with {names[3]}, found none"):
        switch_generation(run.destination, names[0])
    switch_generation(run.destination, names[0], force=True)
    assert expire_generations(run.destination, 2) == names[1:3]
    assert [row["name"] for row in list_generations(run.destination)] == [names[0], names[3]]
    assert sorted(path.name for path in Path(run.destination, "generations").rglob("*") if path.is_file()) == sorted(
        path.name for name in (names[0], names[3]) for path in folder(run, name).rglob("*") if path.is_file()
    )
    with pytest.raises(UsageError, match=f"unknown generation '{names[1]}'"):
        switch_generation(run.destination, names[1])
    again = reprocess_without_prefect(ask(seed=1))["generation"]
    assert again == f"0005{names[1][4:]}", "an expired one is not gone on with"
    assert expire_generations(run.destination, 1) == [names[0]] and current(run) == again


def alive(run: ReprocessRun) -> list[str]:
    return [row["name"] for row in list_generations(run.destination)]


def test_a_rolled_back_generation_expires_before_the_one_that_a_rollback_goes_to(ask: Ask) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    reprocess_without_prefect(ask(seed=1))
    rollback_generation(ask().destination)
    third = reprocess_without_prefect(run := ask(seed=2))["generation"]
    assert alive(run) == [first, third]
    assert rollback_generation(run.destination).generation == first


@pytest.mark.usefixtures("faulty")
def test_a_generation_that_is_held_back_does_not_expire_the_one_that_a_rollback_goes_to(ask: Ask) -> None:
    dlib = partial(ask, recogniser="dlib", gt_column="image")
    first = reprocess_without_prefect(dlib())["generation"]
    second = reprocess_without_prefect(dlib(seed=1))["generation"]
    third = reprocess_without_prefect(run := dlib(method="faulty", max_identity_drop=0.0001))
    assert third["held_back"] and alive(run) == [first, second, third["generation"]]
    assert rollback_generation(run.destination).generation == first


def test_with_one_generation_kept_a_rollback_lasts_and_nothing_is_restored_again(ask: Ask) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    second = reprocess_without_prefect(ask(seed=1))["generation"]
    rollback_generation(ask().destination)
    before = support.snapshot(Path(ask().destination, "generations"))
    for _ in range(2):  # nights
        outcome = reprocess_without_prefect(run := ask(seed=1, keep_generations=1))
        assert (outcome["generation"], outcome["current"], outcome["expired"]) == (second, first, [])
    assert support.snapshot(Path(run.destination, "generations")) == before


def test_a_rollback_holds_for_a_later_generation_of_the_same_settings(ask: Ask) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    second = reprocess_without_prefect(ask(seed=1))["generation"]
    rollback_generation(ask().destination)
    third = reprocess_without_prefect(run := ask(seed=2, keep_generations=1))["generation"]
    assert alive(run) == [third] and first != second
    again = reprocess_without_prefect(ask(seed=1))
    assert again["generation"] == f"0004{second[4:]}"
    assert again["held_back"] == ["it was rolled back"] and current(run) == third
    switch_generation(run.destination, again["generation"], force=True)
    assert reprocess_without_prefect(ask(seed=1))["held_back"] == []


def test_an_expiry_that_was_killed_is_finished_by_the_next(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    first = reprocess_without_prefect(ask())["generation"]
    reprocess_without_prefect(run := ask(seed=1))
    deleted: list[str] = []

    def killed(store: Store, path: str) -> None:
        deleted.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            expire_generations(run.destination, 1)
    assert deleted[0].endswith(f"{first}/run.json")
    assert first not in read_pointer(Store(run.destination)).live
    expire_generations(run.destination, 1)
    assert not any(path.is_file() for path in folder(run, first).rglob("*"))


def test_of_two_writers_the_second_sees_what_the_first_did(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [reprocess_without_prefect(ask(seed=seed, keep_generations=9))["generation"] for seed in range(3)]
    destination, read, raced = ask().destination, generations._read, [False]

    def slow_read(store: Store) -> tuple[Pointer, str | None]:
        found = read(store)
        if not raced[0]:  # another writer, between our look and our write
            raced[0] = True
            switch_generation(destination, names[0], force=True)
        return found

    monkeypatch.setattr(generations, "_read", slow_read)
    with pytest.raises(BfrError, match=f"expected {names[2]} to be current, found {names[0]}"):
        switch_generation(destination, names[1], force=True, instead_of=names[2])
    assert read_pointer(Store(destination)).generation == names[0]


def test_many_writers_lose_no_generation(ask: Ask) -> None:
    asked = [ask(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as writers:
        names = list(writers.map(choose_generation, [resolve_run(run) for run in asked] * 2))
    assert names[:4] == names[4:] and len(set(names)) == 4
    assert sorted(name[:4] for name in names[:4]) == ["0001", "0002", "0003", "0004"]
    assert sorted(read_pointer(Store(ask().destination)).begun) == sorted(set(names))


def test_another_source_or_a_run_in_its_place_is_refused(ask: Ask, tmp_path: Path) -> None:
    choose_generation(resolve_run(ask()))
    support.write_parquet(tmp_path / "other" / "a.parquet", support.make_rows(1))
    with pytest.raises(UsageError, match=r"expected the source .*src of the generations .* use another destination"):
        choose_generation(resolve_run(ask(source=str(tmp_path / "other"))))
    from flows.restore_dataset import restore_without_prefect

    restore_without_prefect(support.make_run(tmp_path, destination=str(tmp_path / "run"), recogniser="none"))
    with pytest.raises(UsageError, match="found a run of `bfr restore`"):
        choose_generation(resolve_run(ask(destination=str(tmp_path / "run"))))


@pytest.mark.usefixtures("prefect_server", "signals")
def test_the_commands(ask: Ask, tmp_path: Path) -> None:
    place = [str(tmp_path / "src"), str(tmp_path / "dst")]
    settings = ["--set", "engine=local", "--set", "recogniser=none"]

    def bfr(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        return result.exit_code, json.loads(result.stdout)

    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings)
    first = outcome["generation"]
    assert code == 0 and outcome["run"]["totals"]["restored"] == 5
    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings, "--set", "seed=1")
    second = outcome["current"]
    assert code == 0 and second != first
    assert bfr("generations", "rollback", place[1]) == (0, {"current": first})
    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings, "--set", "seed=1")
    assert code == 3 and outcome["held_back"] == ["it was rolled back"]
    code, listed = bfr("generations", "list", place[1])
    assert [(row["name"], row["state"]) for row in listed] == [(first, "current"), (second, "finished")]
    assert bfr("generations", "switch", place[1], second)[0] == 2
    assert bfr("generations", "switch", place[1], second, "--force") == (0, {"current": second})
    assert bfr("generations", "expire", place[1], "--keep", "1") == (0, {"expired": [first]})
    shown = CliRunner().invoke(app, ["generations", "list", place[1]]).stdout
    assert second in shown and first not in shown
    assert bfr("reprocess", *place, "--method", "passthrough", "--set", "seed")[0] == 2
