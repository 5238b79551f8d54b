"""A plan is made once; a later one keeps what is still true of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from bfr_models.errors import BfrError, UsageError
from tasks import plan_shards as planning
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.explain_row import explain_row
from tasks.finish_run import finish_run
from tasks.render_report import render_report
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.plan import latest_plan
from tasks.runs.shards import Shard, from_table
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tasks.worker.job import Order, make_job
from tasks.worker.shard_worker import ShardWorker
from tests import support


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files of 8 and 4 rows: three shards."""
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(8))
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(4, first=8))
    return tmp_path / "src"


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
    Store(run.destination).write(f"commits/{second.id}.json", b"{}")
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
    with pytest.raises(UsageError, match=r"b\.parquet until .* with 4 of its 8 rows to do; put it back"):
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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "faulty"}, "method.method: expected \"passthrough\", found \"faulty\""),
        ({"preset": "ffhq512"}, "method.preset.size: expected 128, found 512"),
        ({"seed": 1}, "seed: expected 0, found 1"),
        ({"column": "gt"}, "column: expected \"image\", found \"gt\""),
        ({"gt_column": "gt"}, "gt_column: expected null, found \"gt\""),
        ({"min_identity": 0.5}, "min_identity: expected null, found 0.5"),
        ({"format": "webp", "quality": 80}, "quality: expected 95, found 80"),
        ({"shard_rows": 8}, "shard_rows: expected 4, found 8"),
        ({"source": "/elsewhere"}, "source: expected "),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("faulty")
def test_another_setting_on_the_same_destination_is_refused_by_name(
    change: dict[str, Any], named: str, source: Path
) -> None:
    support.plan_run(support.make_run(source.parent))
    with pytest.raises(UsageError) as refused:
        support.plan_run(support.make_run(source.parent, **change))
    assert named in str(refused.value)


def test_another_option_of_the_method_is_refused_by_name(source: Path) -> None:
    support.plan_run(support.make_run(source.parent, "difface", options={"steps": 2}))
    with pytest.raises(UsageError, match=r"method\.options\.steps: expected 2, found 3"):
        support.check_run(support.make_run(source.parent, "difface", options={"steps": 3}))


def test_other_weights_of_the_same_name_are_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = support.make_run(source.parent, "estimator")
    support.plan_run(run)
    mine = resolve_run(run).method
    trained_on = {name: {**weight, "sha256": "f" * 64} for name, weight in mine.weights.items()}
    monkeypatch.setattr("tasks.config.resolve.resolve_method", lambda *_: replace(mine, weights=trained_on))
    with pytest.raises(UsageError, match=r"method\.weights\.\w+\.sha256: expected .*, found .ffff"):
        support.plan_run(run)


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"actors": 2}, {"max_rejects": 1.0}, {"engine": "ray"}])
def test_what_does_not_change_the_output_may_change(change: dict[str, Any], source: Path) -> None:
    support.plan_run(support.make_run(source.parent))
    assert support.plan_run(support.make_run(source.parent, **change)).todo_count == 3


def test_a_wrong_column_is_answered_with_the_columns_there_are(source: Path) -> None:
    with pytest.raises(UsageError, match=r"image column 'picture', found the columns image \(struct.*--column"):
        support.plan_run(support.make_run(source.parent, column="picture"))
    assert not (source.parent / "dst").exists()


def test_a_file_without_the_column_is_found_before_any_work(source: Path) -> None:
    pq.write_table(pq.read_table(source / "b.parquet").rename_columns(["other"]), source / "z.parquet")
    with pytest.raises(UsageError, match="image column 'image', found the columns other"):
        support.plan_run(support.make_run(source.parent))


def test_a_file_that_is_no_parquet_is_named(source: Path) -> None:
    (source / "z.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match=r"expected a Parquet file at .*z\.parquet"):
        support.plan_run(support.make_run(source.parent))


def test_a_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(support.write_parquet(tmp_path / "one.parquet", support.make_rows(1)))
    (tmp_path / "src").mkdir()
    pq.write_table(table.slice(0, 0), tmp_path / "src" / "a.parquet")
    with pytest.raises(UsageError, match="expected rows in"):
        support.plan_run(support.make_run(tmp_path))


def test_a_destination_with_other_files_is_refused(source: Path) -> None:
    support.write_parquet(source.parent / "dst" / "data" / "mine.parquet", support.make_rows(1))
    with pytest.raises(UsageError, match="found other files"):
        support.check_run(support.make_run(source.parent))


@pytest.mark.parametrize("inside", ["", "/restored"])
def test_a_destination_inside_the_source_is_refused(inside: str, source: Path) -> None:
    with pytest.raises(UsageError, match="expected a destination outside"):
        support.check_run(support.make_run(source.parent, destination=f"{source}{inside}"))


def test_a_destination_inside_a_source_that_ends_in_a_slash_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a destination outside"):
        support.check_run(
            RestoreRun(source="memory://scans/", destination="memory://scans/restored", method="estimator")
        )


def test_a_timeout_that_threads_cannot_keep_is_refused(source: Path) -> None:
    with pytest.raises(ValidationError, match="expected no shard_timeout with engine local"):
        support.make_run(source.parent, engine="local", shard_timeout=2.0)


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
    read_commits = planning.commits.read_commits

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
        shard = next(support.plan_run(finished).todo)
        Store(finished.destination).write(f"data/{shard.id}-under-way.parquet", b"")
        return read_commits(*arguments)

    monkeypatch.setattr("tasks.runs.commits.read_commits", meanwhile)
    with pytest.raises(Exception, match="the same command runs elsewhere"):
        finish_run(resolve_run(finished), Store(finished.destination), support.now())
    assert len(list(destination.glob("data/*-under-way.parquet"))) == 1


@pytest.fixture
def with_rejects(tmp_path: Path, faulty: str) -> RestoreRun:
    """A finished run of three shards; of the second the method failed on a row, of the third one is broken."""
    rows = [row | {"id": f"row-{i}"} for i, row in enumerate(support.make_rows(12))]
    rows[5]["id"] = "heals"
    rows[9]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    (tmp_path / "ill").touch()
    run = support.make_run(tmp_path, faulty, options={"ill": str(tmp_path / "ill")})
    assert support.finished_run(run)["rejects"] == {"method_failed": 1, "undecodable": 1}
    return run


def again(run: RestoreRun, *codes: str) -> RestoreRun:
    return run.model_copy(update={"retry_rejected": codes})


def test_rows_that_were_rejected_for_a_reason_are_tried_again_and_only_their_shards(
    with_rejects: RestoreRun, tmp_path: Path
) -> None:
    before = support.snapshot(tmp_path / "dst" / "data")
    (tmp_path / "ill").unlink()
    run = again(with_rejects, "method_failed")
    (shard,) = support.plan_run(run).todo
    assert (shard.first_row, shard.generation) == (4, 1)
    record = support.finished_run(run)
    assert record["rejects"] == {"undecodable": 1} and record["plan"] == 1
    support.assert_whole(tmp_path / "dst", 12)
    assert len(before.items() & support.snapshot(tmp_path / "dst" / "data").items()) == 2
    assert (tmp_path / "dst" / "commits" / f"{shard.id}.1.json").exists()
    assert not (tmp_path / "dst" / "commits" / f"{shard.id}.json").exists(), "the superseded record has gone"
    assert verify_run(run.destination)["ok"]
    assert [row["generation"] for row in explain_row(run.destination, "heals")] == [1]


def test_rows_that_are_rejected_again_stay_rejected_once(with_rejects: RestoreRun, tmp_path: Path) -> None:
    for generation in (1, 2):
        record = support.finished_run(again(with_rejects, "method_failed", "no_face"))
        assert record["rejects"] == {"method_failed": 1, "undecodable": 1} and record["plan"] == generation
        support.assert_whole(tmp_path / "dst", 12)
    assert support.finished_run(with_rejects)["plan"] == 2, "without the flag it is a no-op"
    assert support.plan_run(again(with_rejects, "no_face")).todo_count == 0


def test_rejected_rows_of_a_file_that_has_gone_stay_as_they_are(with_rejects: RestoreRun, tmp_path: Path) -> None:
    (tmp_path / "src" / "a.parquet").unlink()
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(4, first=40))
    record = support.finished_run(again(with_rejects, "method_failed"))
    assert record["totals"]["rows"] == 16 and record["rejects"] == {"method_failed": 1, "undecodable": 1}


def test_a_retry_that_was_cut_off_is_resumed_and_not_begun_anew(with_rejects: RestoreRun, tmp_path: Path) -> None:
    run = again(with_rejects, "method_failed", "undecodable")
    first = support.plan_run(run)
    assert first.todo_count == 2
    assert support.plan_run(run).number == support.plan_run(with_rejects).number == first.number
    other = support.plan_run(again(with_rejects, "undecodable"))
    assert (other.number, other.todo_count) == (first.number, 2), "nothing of what is done was rejected so"
    assert support.finished_run(with_rejects)["plan"] == first.number
    support.assert_whole(tmp_path / "dst", 12)


def late_attempt(run: RestoreRun, shard: Shard) -> None:
    worker = ShardWorker(make_job(resolve_run(run), "cpu", None))
    worker.load()
    worker.run(Order(shard))


def test_a_late_attempt_at_a_superseded_shard_leaves_nothing(with_rejects: RestoreRun, tmp_path: Path) -> None:
    late = list(from_table(latest_plan(Store(with_rejects.destination)).shards))[1]
    support.finished_run(again(with_rejects, "method_failed"))
    before = support.snapshot(tmp_path / "dst")
    with pytest.raises(BfrError, match=f"expected shard {late.id} in the live plan, found a newer plan without it"):
        late_attempt(with_rejects, late)
    assert support.snapshot(tmp_path / "dst") == before


def test_a_late_attempt_at_a_shard_that_the_newer_plan_still_has_counts(source: Path) -> None:
    run = support.make_run(source.parent)
    late = next(support.plan_run(run).todo)
    support.write_parquet(source / "c.parquet", support.make_rows(6, first=30))
    assert late.name == "b.parquet" and support.plan_run(run).number == 1
    late_attempt(run, late)
    assert support.plan_run(run).done == {late.commit}


def test_a_source_that_grows_leaves_generations_as_they_are(with_rejects: RestoreRun, tmp_path: Path) -> None:
    support.finished_run(again(with_rejects, "undecodable"))
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(4, first=40))
    plan = support.plan_run(with_rejects)
    assert [shard.generation for shard in plan.todo] == [0] and plan.todo_count == 1
    assert sorted(plan.shards["generation"].to_pylist()) == [0, 0, 0, 1]
