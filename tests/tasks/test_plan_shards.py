"""A plan is made once; a later one keeps what is still true of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import UsageError
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.finish_run import finish_run
from tasks.render_report import render_report
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs import damage
from tasks.runs.plan import latest_plan
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tests import support


@pytest.fixture
def finished(source: Path) -> RestoreRun:
    run = support.make_run(source.parent)
    support.finished_run(run)
    return run


def no_listing(*_: Any) -> Any:
    raise AssertionError("the source was listed")


def sources(run: RestoreRun) -> dict[str, list[str]]:
    """Shard ids by file name, of the live plan."""
    found: dict[str, list[str]] = {}
    for shard in latest_plan(Store(run.destination)).shards.to_pylist():
        found.setdefault(shard["name"], []).append(shard["id"])
    return found


def test_a_reference_that_is_not_there_is_missed_before_anything_is_done(source: Path) -> None:
    for missing in ("ffhq.npz", "faces"):
        run = support.make_run(source.parent, fid_reference=str(source.parent / missing))
        with pytest.raises(UsageError, match=missing):
            support.plan_run(run)
        assert not Path(run.destination).exists() or not any(Path(run.destination).rglob("*.parquet"))


def test_a_resume_does_not_list_the_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = support.make_run(source.parent)
    first = support.plan_run(run)
    monkeypatch.setattr("tasks.runs.listing.open_source", no_listing)
    again = support.plan_run(run)
    assert again.shards.equals(first.shards)
    assert again.todo_count == 3 and again.rows == 12


def test_what_is_committed_is_not_to_do(source: Path) -> None:
    run = support.make_run(source.parent)
    first, second, third = support.plan_run(run).todo
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, [second], lambda _: None)
    Store(run.destination).write("commits/of-another-plan.json", b"{}")
    plan = support.plan_run(run)
    assert [shard.id for shard in plan.todo] == [first.id, third.id]
    assert plan.todo_count == 2


def test_a_finished_run_is_planned_again_and_nothing_new_is_nothing_to_do(finished: RestoreRun) -> None:
    before = support.snapshot(Path(finished.destination))
    assert support.plan_run(finished).todo_count == 0
    support.finished_run(finished)
    assert support.snapshot(Path(finished.destination)) == before


def test_a_closed_run_that_lost_a_commit_is_closed_again_with_every_row_once(finished: RestoreRun) -> None:
    destination = Path(finished.destination)
    next((destination / "commits").iterdir()).unlink()
    assert support.finished_run(finished)["totals"]["rows"] == 12
    support.assert_whole(destination, 12)
    assert verify_run(finished.destination)["problems"] == []


def test_a_closed_run_that_lost_a_commit_is_not_finished_until_it_is_closed_again(finished: RestoreRun) -> None:
    destination = Path(finished.destination)
    next((destination / "commits").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"expected a finished run at .*, found 1 of 3 shards to do"):
        render_report(finished.destination)
    (shard,) = support.plan_run(finished).todo
    assert not (destination / "run.json").exists(), "a crash from here on must not leave the run closed"
    (destination / "commits" / f"{shard.commit}.json").write_text("{}")
    with pytest.raises(UsageError, match="expected a finished run"):
        render_report(finished.destination)


def test_a_file_that_was_added_brings_only_its_own_shards(finished: RestoreRun, source: Path) -> None:
    before, data = sources(finished), support.snapshot(Path(finished.destination) / "data")
    support.write_parquet(source / "a.parquet", support.make_rows(4, first=20))
    plan = support.plan_run(finished)
    assert [shard.name for shard in plan.todo] == ["a.parquet"]
    record = support.finished_run(finished)
    after = sources(finished)
    assert {name: after[name] for name in before} == before
    assert record["totals"]["rows"] == 16 and record["plan"] == 1
    support.assert_whole(Path(finished.destination), 16)
    assert data.items() <= support.snapshot(Path(finished.destination) / "data").items(), "what was done was done again"


def test_a_file_that_changed_loses_its_shards_and_the_others_keep_theirs(finished: RestoreRun, source: Path) -> None:
    before = sources(finished)
    support.write_parquet(source / "c.parquet", support.make_rows(5, first=30))
    record = support.finished_run(finished)
    after = sources(finished)
    assert after["b.parquet"] == before["b.parquet"]
    assert not set(after["c.parquet"]) & set(before["c.parquet"])
    assert record["totals"]["rows"] == 13
    support.assert_whole(Path(finished.destination), 13)


def test_a_file_that_changes_back_is_restored_again(finished: RestoreRun, source: Path) -> None:
    path = source / "c.parquet"
    original, stat = path.read_bytes(), path.stat()
    support.write_parquet(path, support.make_rows(5, first=30))
    support.finished_run(finished)
    path.write_bytes(original)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    record = support.finished_run(finished)
    assert record["totals"]["rows"] == 12
    support.assert_whole(Path(finished.destination), 12)
    assert len(support.restored_images(Path(finished.destination))) == 12


def test_what_was_restored_of_a_file_that_has_gone_is_kept(finished: RestoreRun, source: Path) -> None:
    (source / "b.parquet").unlink()
    support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
    record = support.finished_run(finished)
    assert record["totals"]["rows"] == 16
    assert {name.partition("#")[0] for name in support.restored_images(Path(finished.destination))} == {
        "b.parquet", "c.parquet", "d.parquet",
    }  # fmt: skip


def half_done(source: Path) -> RestoreRun:
    """A run that has restored the first of b.parquet's two shards, and then lost that file."""
    run = support.make_run(source.parent)
    plan = support.plan_run(run)
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, list(plan.todo)[:1], lambda _: None)
    (source / "b.parquet").unlink()
    return run


def test_a_file_that_goes_half_done_is_named_and_its_other_rows_are_not_lost(source: Path) -> None:
    run = half_done(source)
    with pytest.raises(UsageError, match=r"b\.parquet to stay until .* with 4 of its 8 rows to do; put it back"):
        support.finished_run(run)
    support.write_parquet(source / "b.parquet", support.make_rows(8))
    assert support.finished_run(run)["totals"]["rows"] == 12


def test_a_file_that_goes_half_done_leaves_a_run_that_retires_what_is_deleted(source: Path) -> None:
    run = half_done(source).model_copy(update={"retire_deleted": True})
    assert support.finished_run(run)["totals"]["rows"] == 4
    support.assert_whole(Path(run.destination), 4)


def test_a_file_that_changes_before_its_turn_is_planned_anew(source: Path) -> None:
    run = support.make_run(source.parent)
    first = support.plan_run(run)
    support.write_parquet(source / "c.parquet", support.make_rows(6, first=30))
    second = support.plan_run(run)
    assert (second.number, second.rows) == (1, 14)
    shared = set(first.shards["id"].to_pylist()) & set(second.shards["id"].to_pylist())
    assert len(shared) == 2


def test_two_drivers_that_plan_at_once_share_the_plan_of_the_first(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, create = support.make_run(source.parent), Store.create

    def beaten(store: Store, path: str, data: bytes) -> bool:
        if path == "plan/00000.parquet":
            monkeypatch.setattr(Store, "create", create)
            support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
            support.plan_run(run)
        return create(store, path, data)

    monkeypatch.setattr(Store, "create", beaten)
    plan = support.plan_run(run)
    assert (plan.number, plan.rows) == (0, 16)


def test_a_run_that_is_planned_anew_while_it_is_finished_keeps_the_newer_files(
    finished: RestoreRun, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Path(finished.destination)
    (destination / "run.json").unlink()
    read_commit = damage.read_commit

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
        shard = next(support.plan_run(finished).todo)
        Store(finished.destination).write(f"data/{shard.id}-under-way.parquet", b"")
        return read_commit(*arguments)

    monkeypatch.setattr("tasks.runs.damage.read_commit", meanwhile)
    with pytest.raises(Exception, match="the same command is running elsewhere"):
        finish_run(resolve_run(finished), Store(finished.destination), support.now())
    assert len(list(destination.glob("data/*-under-way.parquet"))) == 1
