"""Vacuum removes files that no commit will ever name, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from tasks.runs.commits import commit_shard
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12))
    support.finished_run(support.make_run(tmp_path))
    return tmp_path / "dst"


def left_behind(path: Path, hours: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


def test_old_leftovers_go_young_ones_and_live_files_stay(destination: Path) -> None:
    before = support.snapshot(destination)
    old = [
        left_behind(destination / place, 2)
        for place in ("data/s-1.parquet", "features/s-1.parquet", "rejected/s-1.parquet", "commits/.0.tmp", ".1.tmp")
    ]
    young = left_behind(destination / "data" / "s-2.parquet", 0.5)
    dry = vacuum_run(str(destination), dry_run=True)
    assert all(path.exists() for path in old)
    found = vacuum_run(str(destination))
    assert found["removed"] == dry["removed"] and found["bytes"] == 5 * len(b"left behind")
    assert {entry["what"] for entry in found["removed"]} == {"orphan", "temporary file"}
    assert not any(path.exists() for path in old) and young.exists() and found["too_young"] == 1
    young.unlink()
    assert support.snapshot(destination) == before
    assert verify_run(str(destination))["ok"]


def test_of_a_run_under_way_every_commit_keeps_its_files(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12))
    run = support.make_run(tmp_path)
    shard = next(support.plan_run(run).todo)
    store = Store(run.destination)
    commit_shard(store, shard, {"data": b"of this plan"}, {"rows": 4})
    commit_shard(store, support.make_shard("other"), {"data": b"of a plan to come"}, {"rows": 4})
    for path in (tmp_path / "dst").rglob("*.*"):
        os.utime(path, (0, 0))
    left_behind(tmp_path / "dst" / "data" / "s-1.parquet", 2)
    found = vacuum_run(run.destination)
    assert [entry["path"] for entry in found["removed"]] == ["data/s-1.parquet"]


def test_commits_of_shards_that_are_no_longer_planned_go_before_their_files(destination: Path) -> None:
    record = commit_shard(
        Store(str(destination)), support.make_shard("dead"), {"data": b"of a file that changed"}, {"rows": 4}
    )
    for path in destination.rglob("dead*"):
        os.utime(path, (0, 0))
    removed = [entry["path"] for entry in vacuum_run(str(destination))["removed"]]
    assert removed == ["commits/dead.json", record["files"]["data"]["path"]]
    assert verify_run(str(destination))["ok"]


@pytest.mark.parametrize("age", ["1 hour", "0m", "59m", "h"])
def test_an_age_that_is_none_or_might_hit_an_attempt_is_refused(age: str, destination: Path) -> None:
    with pytest.raises(UsageError, match="expected a"):
        vacuum_run(str(destination), age)
