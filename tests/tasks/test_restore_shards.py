"""All shards are restored, or the caller is told why not."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks.engine.pool import Outcome
from tasks.restore_shards import restore_shards
from tasks.worker.job import Order
from tests.tasks.engine.fake_pool import FakePool, done, shard

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_shards_that_could_not_be_done_are_named_once_the_others_are() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return Outcome(order, error=OSError("disk full")) if order.shard.id == "1" else done(order)

    records: list[dict[str, Any]] = []
    with pytest.raises(BfrError, match=r"1 of 4 shards .*rows 10 to 19 of /a/x\.parquet\): OSError: disk full"):
        restore_shards(FakePool(behave), [shard(number) for number in range(4)], records.append)
    assert len(records) == 3


@pytest.mark.parametrize("error", [RuntimeError("the cluster has gone"), UsageError("no such column")])
def test_when_the_dispatcher_dies_the_caller_is_told_and_not_left_waiting(error: Exception) -> None:
    pool = FakePool()
    pool.submit = lambda _: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    with pytest.raises(BfrError, match=str(error)):
        restore_shards(pool, [shard(0)], lambda _: None)


def test_an_interrupt_of_the_caller_stops_the_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, calls = threading.Event.wait, Counter[str]()

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and timeout == 0.2:
            calls["n"] += 1
            if calls["n"] == 3:
                raise KeyboardInterrupt
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    monkeypatch.setattr("tasks.engine.dispatch.MAX_ATTEMPTS", 10**9)
    pool = FakePool(lambda order, _: Outcome(order, error=OSError("for ever")))
    with pytest.raises(KeyboardInterrupt):
        restore_shards(pool, [shard(0)], lambda _: None)
    assert "dispatcher" not in {thread.name for thread in threading.enumerate()}
