"""Workers that are started before the recipe asks for them."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.config.resolve import resolve_run
from tasks.engine.pool import IN_HAND
from tasks.engine.thread_pool import ThreadPool
from tasks.restore_shards import begin_shards, early_workers, restore_shards, worker_pool
from tasks.runs.commits import committed
from tasks.storage.store import Store
from tasks.worker import shard_worker
from tests import support


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[ThreadPool]:
    """The pools that have been closed, in order."""
    pools: list[ThreadPool] = []
    close = ThreadPool.close

    def noted(pool: ThreadPool) -> None:
        pools.append(pool)
        close(pool)

    monkeypatch.setattr(ThreadPool, "close", noted)
    return pools


def test_the_recipe_is_given_the_workers_that_are_there(tmp_path: Path, closed: list[ThreadPool]) -> None:
    """Once: they are stopped with its block, as its own would be."""
    resolved = resolve_run(support.make_run(tmp_path, engine="local"))
    with early_workers(resolved):
        with worker_pool(resolve_run(resolved.run)) as first:
            assert closed == []
        assert closed == [first]
        with worker_pool(resolved) as second:
            assert second is not first
    assert closed == [first, second]


def test_workers_of_another_run_are_left_alone(tmp_path: Path, closed: list[ThreadPool]) -> None:
    """And are stopped even if nobody asks for them."""
    resolved = resolve_run(support.make_run(tmp_path, engine="local"))
    other = replace(resolved, run=resolved.run.model_copy(update={"seed": 5}))
    with early_workers(resolved):
        with worker_pool(other) as its:
            assert closed == []
        assert closed == [its]
    assert len(closed) == 2 and closed[1] is not its


def test_each_run_is_given_its_own_workers(tmp_path: Path, closed: list[ThreadPool]) -> None:
    """Those of the next run may load while one is at work."""
    first = resolve_run(support.make_run(tmp_path, engine="local"))
    second = replace(first, run=first.run.model_copy(update={"seed": 5}))
    with early_workers(first) as one, early_workers(second) as other:
        with worker_pool(first) as its:
            assert its is one
        assert closed == [one]
        with worker_pool(second) as its:
            assert its is other
        assert closed == [one, other]


def test_what_early_workers_have_begun_is_taken_over_once(tmp_path: Path) -> None:
    """More of them than a worker has in hand later: the recipe may be long in coming."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12), group_rows=1)
    run = support.make_run(tmp_path, shard_rows=1)
    plan, records = support.plan_run(run), list[str]()
    resolved = resolve_run(run)
    with early_workers(resolved) as pool:
        begin_shards(pool, plan.todo)
        assert pool.free_slots() == 0
        deadline = time.monotonic() + 60
        while len(committed(Store(run.destination))) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(committed(Store(run.destination))) == IN_HAND + pool.waiting_room == 10
        with worker_pool(resolved) as its:
            restore_shards(its, list(plan.todo), lambda record: records.append(record["shard"]))
    assert sorted(records) == sorted(shard.id for shard in plan.todo) and len(records) == 12


def test_what_waits_when_the_workers_are_stopped_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(10), group_rows=1)
    run = support.make_run(tmp_path, shard_rows=1)
    plan, read, resolved = support.plan_run(run), threading.Semaphore(0), resolve_run(run)
    go, times = threading.Event(), list[int]()

    def slow(*arguments: Any) -> Any:
        times.append(1)
        read.release()
        go.wait(30)
        return read_shard(*arguments)

    read_shard = shard_worker.read_shard
    monkeypatch.setattr(shard_worker, "read_shard", slow)
    with early_workers(resolved) as pool:
        begin_shards(pool, plan.todo)
        assert all(read.acquire(timeout=30) for _ in range(IN_HAND))
        pool._worker._stop.set()  # type: ignore[attr-defined]  # as `close` does first
        go.set()
    assert len(times) == IN_HAND and not committed(Store(run.destination))
