"""Workers that are started before the recipe asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.config.resolve import resolve_run
from tasks.engine.thread_pool import ThreadPool
from tasks.restore_shards import early_workers, worker_pool
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
