"""A pool in this process keeps nothing of a shard that has failed but the reason."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future

from tasks.engine.thread_pool import _outcome
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.worker.job import Order


class Pictures:
    """What a shard holds while it is worked on."""


def test_a_shard_that_failed_lets_its_pictures_go() -> None:
    held = list[weakref.ref[Pictures]]()

    def store(pictures: Pictures) -> None:
        raise OSError("the store does not answer")

    def work() -> None:
        pictures = Pictures()
        held.append(weakref.ref(pictures))
        try:
            store(pictures)
        except OSError as error:
            raise RuntimeError("not written") from error

    future = Future[Record | None]()
    try:
        work()
    except RuntimeError as error:
        future.set_exception(error)
    outcome = _outcome(Order(Shard("0", "/a/x.parquet", "x.parquet", "1", 0, 1, 0, 10)), future)
    gc.collect()
    assert isinstance(outcome.error, RuntimeError) and isinstance(outcome.error.__cause__, OSError)
    assert held[0]() is None
