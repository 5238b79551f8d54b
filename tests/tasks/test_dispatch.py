"""The dispatcher with workers that do as they are told."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks._dispatch import MAX_ATTEMPTS, MAX_LOSSES, Dispatch
from tasks._pool import Outcome
from tasks._shards import Shard
from tasks.restore_shards import restore_shards

Behaviour = Callable[[Shard, int], Outcome]


def shard(number: int, rows: int = 10) -> Shard:
    return Shard(str(number), "/a/x.parquet", "x.parquet", "1", number, number + 1, number * rows, rows)


def done(shard: Shard, rejected: int = 0) -> Outcome:
    rejects = {"undecodable": rejected} if rejected else {}
    return Outcome(shard, record={"shard": shard.id, "rows": shard.rows, "rejected": rejected, "rejects": rejects})


class FakePool:
    """One worker with room for two shards. `behave` says what becomes of a shard at its n-th try; a shard that
    loses its worker takes its neighbour with it, as a dying process does."""

    def __init__(self, behave: Behaviour = lambda shard, _: done(shard)) -> None:
        self._behave, self._in_hand = behave, deque[Shard]()
        self.tries = Counter[str]()

    def free_slots(self) -> int:
        return 2 - len(self._in_hand)

    def submit(self, shard: Shard) -> None:
        assert self.free_slots()
        self.tries[shard.id] += 1
        self._in_hand.append(shard)

    def poll(self, timeout: float) -> list[Outcome]:
        outcomes = [self._behave(shard, self.tries[shard.id]) for shard in self._in_hand]
        lost = [outcome for outcome in outcomes if outcome.worker_lost]
        if lost:
            outcomes = [Outcome(shard, error=OSError(), worker_lost=True) for shard in self._in_hand]
        self._in_hand.clear()
        return outcomes

    def close(self) -> None: ...


def dispatched(behave: Behaviour, count: int, rows: int = 10) -> tuple[list[str], Dispatch, FakePool]:
    """Ids of the shards that were done, in the order they were."""
    order: list[str] = []
    pool = FakePool(behave)
    dispatch = Dispatch(pool, lambda record: order.append(record["shard"]))
    dispatch.run(shard(number, rows) for number in range(count))
    return order, dispatch, pool


@pytest.mark.parametrize("count", [0, 1, 2, 101])
def test_every_shard_is_done_exactly_once(count: int) -> None:
    order, dispatch, pool = dispatched(lambda shard, _: done(shard), count)
    assert sorted(order, key=int) == [str(number) for number in range(count)]
    assert set(pool.tries.values()) <= {1} and not dispatch.set_aside


def test_a_shard_that_fails_for_a_while_is_done_in_the_end() -> None:
    def behave(shard: Shard, attempt: int) -> Outcome:
        return done(shard) if attempt == MAX_ATTEMPTS else Outcome(shard, error=OSError("busy"))

    order, dispatch, pool = dispatched(behave, 5)
    assert sorted(order) == list("01234") and not dispatch.set_aside
    assert set(pool.tries.values()) == {MAX_ATTEMPTS}


def test_a_shard_that_always_fails_is_set_aside_and_the_others_finish() -> None:
    def behave(shard: Shard, _: int) -> Outcome:
        return Outcome(shard, error=OSError("gone")) if shard.id == "1" else done(shard)

    order, dispatch, pool = dispatched(behave, 5)
    assert sorted(order) == list("0234")
    assert [outcome.shard.id for outcome in dispatch.set_aside] == ["1"]
    assert pool.tries["1"] == MAX_ATTEMPTS


def test_a_shard_that_kills_its_worker_takes_no_neighbour_with_it() -> None:
    def behave(shard: Shard, _: int) -> Outcome:
        return Outcome(shard, error=OSError(), worker_lost=True) if shard.id in "13" else done(shard)

    order, dispatch, pool = dispatched(behave, 6)
    assert sorted(order) == list("0245")
    assert {outcome.shard.id for outcome in dispatch.set_aside} == {"1", "3"}
    assert pool.tries["1"] == pool.tries["3"] == MAX_LOSSES


def test_lost_workers_and_errors_are_counted_apart() -> None:
    def behave(shard: Shard, attempt: int) -> Outcome:
        if attempt < MAX_ATTEMPTS + MAX_LOSSES - 1:
            return Outcome(shard, error=OSError(), worker_lost=attempt % 2 == 0)
        return done(shard)

    order, dispatch, _ = dispatched(behave, 1)
    assert order == ["0"] and not dispatch.set_aside


def test_an_error_that_no_other_try_can_mend_stops_the_run_at_once() -> None:
    def behave(shard: Shard, _: int) -> Outcome:
        return Outcome(shard, error=UsageError("no such column")) if shard.id == "2" else done(shard)

    pool = FakePool(behave)
    with pytest.raises(UsageError, match="no such column"):
        Dispatch(pool).run(shard(number) for number in range(100))
    assert pool.tries["2"] == 1 and len(pool.tries) <= 4


def test_a_set_stop_event_ends_the_run_with_what_is_done() -> None:
    order: list[str] = []
    dispatch = Dispatch(FakePool())
    dispatch.on_done = lambda record: (order.append(record["shard"]), len(order) == 4 and dispatch.stop.set())
    dispatch.run(shard(number) for number in range(100))
    assert order == list("0123")


def test_a_run_that_rejects_nearly_everything_stops_early() -> None:
    done_rows = Counter[str]()

    def behave(shard: Shard, _: int) -> Outcome:
        done_rows["n"] += shard.rows
        return done(shard, rejected=96 * shard.rows // 100)

    with pytest.raises(BfrError, match=r"192 of the first 200 rows .*'undecodable'.* --column"):
        dispatched(behave, 100, rows=50)
    assert done_rows["n"] <= 300


@pytest.mark.parametrize(
    ("count", "rows", "rejected"),
    [(19, 10, 10), (2, 500, 500), (14, 10, 3), (100, 10, 9)],
    ids=["a small run", "two large shards", "40 bad of 140", "nine of ten"],
)
def test_other_runs_go_on_to_their_end(count: int, rows: int, rejected: int) -> None:
    order, _, _ = dispatched(lambda shard, _: done(shard, rejected), count, rows)
    assert len(order) == count


def test_bad_rows_that_come_late_do_not_stop_a_run() -> None:
    order, _, _ = dispatched(lambda shard, _: done(shard, 10 if int(shard.id) > 30 else 0), 200)
    assert len(order) == 200


def test_shards_that_could_not_be_done_are_named_once_the_others_are() -> None:
    def behave(shard: Shard, _: int) -> Outcome:
        return Outcome(shard, error=OSError("disk full")) if shard.id == "1" else done(shard)

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
    monkeypatch.setattr("tasks._dispatch.MAX_ATTEMPTS", 10**9)
    pool = FakePool(lambda shard, _: Outcome(shard, error=OSError("for ever")))
    with pytest.raises(KeyboardInterrupt):
        restore_shards(pool, [shard(0)], lambda _: None)
    assert "dispatcher" not in {thread.name for thread in threading.enumerate()}
