"""Which of a worker's threads compute with how many of OpenMP's, and how the accelerator's ends."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bfr_models.methods.passthrough import Passthrough
from bfr_models.types import FaceBatch
from tasks.config.resolve import resolve_run
from tasks.worker import accelerator, restore_rows
from tasks.worker.daemon_threads import WORKER
from tasks.worker.decide import Decide
from tasks.worker.framing import Crop
from tasks.worker.in_flight import FaceInFlight
from tasks.worker.job import Order, make_job
from tasks.worker.open_rows import Face
from tasks.worker.shard_worker import ShardWorker
from tests import support


def test_one_thread_loads_and_calls_the_method_with_a_team_and_all_others_compute_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = defaultdict[str, set[tuple[str, int]]](set)

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            seen[name].add((threading.current_thread().name, torch.get_num_threads()))
            return call(*arguments)

        return noted

    def load(*arguments: Any) -> Any:
        restorer = load_method(*arguments)
        restorer.restore = noting("restore", restorer.restore)
        return restorer

    load_method = accelerator.load_method
    monkeypatch.setattr(accelerator, "load_method", noting("load", load))
    monkeypatch.setattr(accelerator, "_stacked", noting("stack", accelerator._stacked))
    for name in ("load_scorer", "load_decide", "open_row", "encode"):
        monkeypatch.setattr(restore_rows, name, noting(name, getattr(restore_rows, name)))
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8))
    run = support.make_run(tmp_path, batch_size=2, shard_rows=8)
    (shard,) = support.plan_run(run).todo
    worker, before = ShardWorker(make_job(resolve_run(run), "cpu", threads=3)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        worker.load()
        worker.run(Order(shard))
        worker.close()
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert seen.pop("load") == seen.pop("restore") == {(WORKER, 3)}
    assert set(seen) == {"stack", "load_scorer", "load_decide", "open_row", "encode"}
    assert {threads for noted in seen.values() for _, threads in noted} == {1}
    assert after == 2, "what comes after the worker has the cores to itself"


def test_a_batch_put_together_before_memory_ran_out_is_restored_in_parts_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def bounded(self: Any, batch: FaceBatch) -> FaceBatch:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return batch

    monkeypatch.setattr(Passthrough, "restore", bounded)
    run = support.make_run(tmp_path, "passthrough", batch_size=8)
    restores = accelerator.Accelerator(make_job(resolve_run(run), "cpu", threads=1), lambda: None, threads=1)
    side = restores.side
    crop = Crop(torch.zeros(3, side, side))
    faces = [FaceInFlight(Face(str(n), n, n, (0, 0, side, side)), crop) for n in range(8)]
    waiting = faces[:7]  # put together while the first batch is in the method
    for batch in (faces, waiting):
        restored, _ = restores.restore(batch)
        assert [tuple(face.shape) for face in restored] == [tuple(crop.lq.shape)] * len(batch)
    restores.close()
    first, second = [8, 4, 2, 2, 4, 2, 2], [2, 2, 2, 1]
    assert sizes == [*first, *second]


def test_its_thread_ends_with_the_worker(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    others = set(threading.enumerate())
    worker = ShardWorker(make_job(resolve_run(support.make_run(tmp_path)), "cpu", threads=1))
    worker.load()
    (own,) = (thread for thread in set(threading.enumerate()) - others if thread.name == WORKER)
    assert own.daemon
    worker.close()
    own.join(30)
    assert not own.is_alive()


def test_batches_of_large_faces_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A face of 512 px takes 9 MB on its way, and so a batch of 16 more than any small one may."""
    sizes = []

    def noting(self: Any, batch: FaceBatch) -> FaceBatch:
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(Passthrough, "restore", noting)
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(36, side=512))
    run = support.make_run(tmp_path, preset="ffhq512", batch_size=16, shard_rows=36)
    (shard,) = support.plan_run(run).todo
    worker = ShardWorker(make_job(resolve_run(run), "cpu", threads=1))
    worker.load()
    worker.run(Order(shard))
    worker.close()
    assert sorted(sizes) == [4, 16, 16]  # two threads put them together, each as soon as it can


def test_its_seconds_are_the_methods_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that takes .1 s and a judge that takes fifty times as long."""

    def slow(seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*arguments: Any) -> Any:
            time.sleep(seconds)
            return call(*arguments)

        return slowed

    monkeypatch.setattr(Passthrough, "restore", slow(0.1, Passthrough.restore))
    monkeypatch.setattr(Decide, "choose", slow(5.0, Decide.choose))
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    run = support.make_run(tmp_path)
    (shard,) = support.plan_run(run).todo
    worker = ShardWorker(make_job(resolve_run(run), "cpu", threads=1))
    worker.load()
    record = worker.run(Order(shard))
    worker.close()
    assert record is not None and 0.1 <= record["accelerator_seconds"] < 5.0
