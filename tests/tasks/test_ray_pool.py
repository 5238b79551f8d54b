"""Real Ray actors, some of which are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import BfrError, UsageError
from flows.restore_dataset import restore_without_prefect
from tasks import _ray_pool
from tasks._commits import Record
from tasks.config import RestoreRun
from tasks.plan_shards import plan_shards
from tasks.restore_shards import restore_shards, worker_pool
from tests import support

pytestmark = pytest.mark.usefixtures("ray_cluster", "faulty")


def ray_run(folder: Path, **settings: Any) -> RestoreRun:
    return support.run(folder, "faulty", engine="ray", actors=1, gpus_per_actor=0, **settings)


def restore(run: RestoreRun, on_done: Callable[[Record], None]) -> None:
    with worker_pool(run) as pool:
        restore_shards(pool, list(plan_shards(run).todo), on_done)


def test_a_worker_that_is_killed_half_way_is_replaced_and_its_shards_are_done_once(tmp_path: Path) -> None:
    support.write(tmp_path / "src" / "a.parquet", support.rows(24))
    pids = tmp_path / "pids"
    pids.mkdir()
    done: list[str] = []

    def kill_after_three(record: Record) -> None:
        done.append(record["shard"])
        if len(done) == 3:
            (pid,) = pids.iterdir()
            os.kill(int(pid.name), signal.SIGKILL)

    run = ray_run(tmp_path, options={"pids": str(pids), "seconds": 0.1})
    restore(run, kill_after_three)
    assert len(list(pids.iterdir())) == 2
    assert sorted(done) == sorted(set(done)) and len(done) == 6
    record = restore_without_prefect(run)
    assert record["totals"]["restored"] == 24
    support.assert_whole(tmp_path / "dst", 24)


@pytest.mark.parametrize(("fault", "reason"), [("kills", "the worker died"), ("hangs", "no result in 2 s")])
def test_a_row_that_ends_every_worker_is_rejected_and_all_others_are_restored(
    fault: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ray_pool, "MIN_TRIAL_DEADLINE", 1.0)
    rows = [row | {"id": fault if i == 1 else f"row-{i}"} for i, row in enumerate(support.rows(6))]
    support.write(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    run = ray_run(tmp_path, shard_rows=2, shard_timeout=2.0 if fault == "hangs" else None)
    record = restore_without_prefect(run)
    assert record["rejects"] == {"worker_killed": 1} and record["totals"]["restored"] == 5
    support.assert_whole(tmp_path / "dst", 6)
    (rejected,) = support.table(tmp_path / "dst" / "rejected").to_pylist()
    assert rejected["id"] == fault and "this row ended it 2 times" in rejected["detail"]
    assert reason in rejected["detail"] or "no result in 1 s" in rejected["detail"]
    assert rejected["image"]["bytes"] == rows[1]["image"]["bytes"]


def test_a_method_that_does_not_load_is_a_clear_error(tmp_path: Path) -> None:
    support.write(tmp_path / "src" / "a.parquet", support.rows(4))
    message = "a worker could not load faulty on cpu: RuntimeError: no kernel for this card"
    with pytest.raises(BfrError, match=message):
        restore(ray_run(tmp_path, options={"load_error": "no kernel for this card"}), lambda _: None)


def test_workers_that_cannot_be_placed_are_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support.write(tmp_path / "src" / "a.parquet", support.rows(4))
    monkeypatch.setattr(_ray_pool, "START_TIMEOUT", 1.0)
    run = ray_run(tmp_path)
    with pytest.raises(BfrError, match=r"expected a worker to be ready within 1 s.*the cluster offers"):
        restore(run.model_copy(update={"gpus_per_actor": 7.0}), lambda _: None)


def test_a_worker_that_is_replaced_late_in_a_run_has_its_own_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _ray_pool.RayPool.__new__(_ray_pool.RayPool)
    pool._longest = 0.0
    pool._actors = [_ray_pool._Actor(None, loading="ref", created=time.monotonic())]
    pool._kill_what_hangs()
    pool._actors[0].created -= _ray_pool.START_TIMEOUT + 1
    monkeypatch.setattr(_ray_pool.ray, "cluster_resources", dict)
    with pytest.raises(BfrError, match="expected a worker to be ready"):
        pool._kill_what_hangs()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_said_in_seconds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(_ray_pool.ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match=r"expected a Ray cluster at RAY_ADDRESS=.*127\.0\.0\.1:9"):
        _ray_pool.connect_ray()
