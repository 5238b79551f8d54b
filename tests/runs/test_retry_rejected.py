"""Retrying rejected rows redoes their shards only, and every row counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bfr_models.errors import BfrError
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.estimate_run import estimate_run
from tasks.explain_row import explain_row
from tasks.runs.plan import latest_plan
from tasks.runs.shards import Shard, from_table
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tasks.worker.job import Order, make_job
from tasks.worker.shard_worker import ShardWorker
from tests import support


@pytest.fixture
def with_rejects(tmp_path: Path, faulty: str) -> RestoreRun:
    """A finished run of three shards: the method failed on a row of the second, and a row of the third is broken."""
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


def test_a_late_attempt_at_a_shard_that_the_newer_plan_still_has_counts(tmp_path: Path) -> None:
    for name, first in (("b", 0), ("c", 4)):
        support.write_parquet(tmp_path / "src" / f"{name}.parquet", support.make_rows(4, first))
    run = support.make_run(tmp_path)
    late = next(support.plan_run(run).todo)
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(6, first=30))
    assert late.name == "b.parquet" and support.plan_run(run).number == 1
    late_attempt(run, late)
    assert support.plan_run(run).done == {late.commit}


def test_a_source_that_grows_leaves_generations_as_they_are(with_rejects: RestoreRun, tmp_path: Path) -> None:
    support.finished_run(again(with_rejects, "undecodable"))
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(4, first=40))
    plan = support.plan_run(with_rejects)
    assert [shard.generation for shard in plan.todo] == [0] and plan.todo_count == 1
    assert sorted(plan.shards["generation"].to_pylist()) == [0, 0, 0, 1]


def test_an_estimate_takes_shards_that_were_tried_again_for_done(with_rejects: RestoreRun, tmp_path: Path) -> None:
    (tmp_path / "ill").unlink()
    run = again(with_rejects, "method_failed")
    assert estimate_run(resolve_run(run))["rows_to_do"] == 4, "the shard that is to be tried again"
    support.finished_run(run)
    for asked in (with_rejects, run):
        assert estimate_run(resolve_run(asked))["rows_to_do"] == 0
