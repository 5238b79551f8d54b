"""Workers that are started before the recipe asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tasks.config.resolve import resolve_run
from tasks.engine.thread_pool import ThreadPool
from tasks.restore_shards import early_workers, worker_pool
from tests import support


def test_the_recipe_is_given_the_workers_that_are_there(tmp_path: Path) -> None:
    """Once: they are stopped with its block, as its own would be."""
    resolved = resolve_run(support.make_run(tmp_path, engine="local"))
    with early_workers(resolved):
        with worker_pool(resolve_run(resolved.run)) as first:
            assert isinstance(first, ThreadPool) and not first._worker.stop.is_set()
        assert first._worker.stop.is_set()
        with worker_pool(resolved) as second:
            assert second is not first


def test_workers_of_another_run_are_left_alone(tmp_path: Path) -> None:
    resolved = resolve_run(support.make_run(tmp_path, engine="local"))
    other = replace(resolved, run=resolved.run.model_copy(update={"seed": 5}))
    with early_workers(resolved), worker_pool(other) as its, worker_pool(resolved) as early:
        assert its is not early
    assert isinstance(early, ThreadPool) and early._worker.stop.is_set()
