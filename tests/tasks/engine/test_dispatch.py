"""The dispatcher with workers that do as they are told."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks.engine.bisection import MAX_LOSSES
from tasks.engine.dispatch import MAX_ATTEMPTS, Dispatch
from tasks.engine.pool import Outcome, WorkerLostError
from tasks.engine.ray_pool import MAX_LOSSES_IN_A_ROW
from tasks.restore_shards import restore_shards
from tasks.runs.shards import Shard
from tasks.worker.job import Order

Behaviour = Callable[[Order, int], Outcome]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.engine.dispatch.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("tasks.engine.dispatch.POLL_SECONDS", 0.01)


def shard(number: int, rows: int = 10) -> Shard:
    return Shard(str(number), "/a/x.parquet", "x.parquet", "1", number, number + 1, number * rows, rows)


def done(order: Order, rejected: int = 0) -> Outcome:
    """A commit; of a trial only that the worker lived."""
    if order.trial is not None:
        return Outcome(order)
    rejected += order.shard.rows if order.unreadable else len(order.poison)
    rejects = {"undecodable": rejected} if rejected else {}
    shard = order.shard
    return Outcome(order, record={"shard": shard.id, "rows": shard.rows, "rejected": rejected, "rejects": rejects})


def lost(order: Order) -> Outcome:
    return Outcome(order, error=WorkerLostError("died"), worker_lost=True)


class FakePool:
    """One worker with room for two shards. `behave` says what becomes of a shard at its n-th try; a shard that
    loses its worker takes its neighbour with it, as a dying process does."""

    def __init__(self, behave: Behaviour = lambda order, _: done(order)) -> None:
        self._behave, self._in_hand = behave, deque[Order]()
        self.tries = Counter[str]()
        self.orders: list[Order] = []

    def free_slots(self) -> int:
        return 2 - len(self._in_hand)

    def submit(self, order: Order) -> None:
        assert self.free_slots()
        self.tries[order.shard.id] += 1
        self.orders.append(order)
        self._in_hand.append(order)

    def poll(self, timeout: float) -> list[Outcome]:
        outcomes = [self._behave(order, self.tries[order.shard.id]) for order in self._in_hand]
        if any(outcome.worker_lost for outcome in outcomes):
            outcomes = [lost(order) for order in self._in_hand]
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
    order, dispatch, pool = dispatched(lambda order, _: done(order), count)
    assert sorted(order, key=int) == [str(number) for number in range(count)]
    assert set(pool.tries.values()) <= {1} and not dispatch.set_aside


def test_a_shard_that_fails_for_a_while_is_done_in_the_end() -> None:
    def behave(order: Order, attempt: int) -> Outcome:
        return done(order) if attempt == MAX_ATTEMPTS else Outcome(order, error=OSError("busy"))

    order, dispatch, pool = dispatched(behave, 5)
    assert sorted(order) == list("01234") and not dispatch.set_aside
    assert set(pool.tries.values()) == {MAX_ATTEMPTS}


def test_a_shard_that_always_fails_is_set_aside_and_the_others_finish() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return Outcome(order, error=OSError("gone")) if order.shard.id == "1" else done(order)

    order, dispatch, pool = dispatched(behave, 5)
    assert sorted(order) == list("0234")
    assert [outcome.order.shard.id for outcome in dispatch.set_aside] == ["1"]
    assert pool.tries["1"] == MAX_ATTEMPTS


def poisoned(rows: dict[str, set[int]]) -> Behaviour:
    """Workers die of these rows of these shards, and of no others."""

    def behave(order: Order, _: int) -> Outcome:
        touched = set(range(order.shard.rows) if order.trial is None else order.trial) - order.poison.keys()
        return lost(order) if touched & rows.get(order.shard.id, set()) else done(order)

    return behave


@pytest.mark.parametrize("rows", [{0}, {9}, {3, 4}, {0, 5, 9}, set(range(10))], ids=str)
def test_the_rows_that_kill_their_worker_are_found_and_the_others_restored(rows: set[int]) -> None:
    order, dispatch, pool = dispatched(poisoned({"1": rows}), 4)
    assert sorted(order) == list("0123") and not dispatch.set_aside
    final = pool.orders[-1]
    assert (final.shard.id, final.trial, set(final.poison)) == ("1", None, rows)
    assert all("died" in why for why in final.poison.values())


def test_one_poison_row_of_a_thousand_costs_few_workers() -> None:
    deaths = Counter[str]()

    def behave(order: Order, attempt: int) -> Outcome:
        outcome = poisoned({"0": {777}})(order, attempt)
        deaths["n"] += outcome.worker_lost
        return outcome

    dispatched(behave, 1, rows=1000)
    assert deaths["n"] <= 2 + 1 + 10 + 2  # in company, alone, halving, and the row itself twice


def test_a_shard_that_kills_its_worker_takes_no_neighbour_with_it() -> None:
    order, dispatch, pool = dispatched(poisoned({"1": {2}, "3": {4}}), 6)
    assert sorted(order) == list("012345") and not dispatch.set_aside
    assert {name: pool.tries[name] for name in "0245"} == {"0": 2, "2": 2, "4": 1, "5": 1}  # in company; then alone


def test_a_row_that_a_worker_died_over_by_chance_is_not_blamed() -> None:
    chances = iter([True] * 4)  # as when one spot machine after the other is taken away

    def behave(order: Order, _: int) -> Outcome:
        return lost(order) if next(chances, False) else done(order)

    order, dispatch, pool = dispatched(behave, 1)
    assert order == ["0"] and not dispatch.set_aside
    assert not pool.orders[-1].poison


def test_rows_that_cannot_even_be_read_are_rejected_unread() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return done(order) if order.unreadable or order.shard.id != "1" else lost(order)

    order, dispatch, pool = dispatched(behave, 3)
    assert sorted(order) == list("012") and not dispatch.set_aside
    assert "reading" in (pool.orders[-1].unreadable or "")


def test_a_shard_that_kills_only_as_a_whole_is_rejected_as_a_whole() -> None:
    def behave(order: Order, _: int) -> Outcome:
        kills = order.shard.id == "1" and order.trial is None and len(order.poison) < order.shard.rows
        return lost(order) if kills else done(order)

    order, dispatch, pool = dispatched(behave, 3)
    assert sorted(order) == list("012") and not dispatch.set_aside
    assert set(pool.orders[-1].poison) == set(range(10)) and pool.orders[-1].unreadable is None


def test_a_shard_that_kills_even_when_all_its_rows_are_rejected_is_rejected_unread() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return lost(order) if order.shard.id == "1" and order.trial is None and not order.unreadable else done(order)

    order, dispatch, _ = dispatched(behave, 3)
    assert sorted(order) == list("012") and not dispatch.set_aside


def test_a_shard_of_more_killers_than_are_looked_for_is_done_with_all_of_them_rejected() -> None:
    deaths = Counter[str]()

    def behave(order: Order, attempt: int) -> Outcome:
        outcome = poisoned({"1": set(range(100))})(order, attempt)
        deaths["n"] += outcome.worker_lost and order.is_suspect
        return outcome

    order, dispatch, pool = dispatched(behave, 3, rows=100)
    assert sorted(order) == list("012") and not dispatch.set_aside
    reasons = pool.orders[-1].poison
    assert set(reasons) == set(range(100)) and deaths["n"] == 1 + MAX_LOSSES
    assert "this row ended it 2 times" in reasons[0] and reasons[99].startswith("untested")


def test_of_poisoned_shards_in_a_row_some_are_done_before_more_workers_are_lost() -> None:
    """A pool stops the run when too many workers die over new shards with nothing done in between."""
    new_losses, most = 0, 0

    def behave(order: Order, attempt: int) -> Outcome:
        nonlocal new_losses, most
        outcome = poisoned({str(number): {3} for number in range(40)})(order, attempt)
        new_losses = 0 if outcome.record else new_losses + (outcome.worker_lost and not order.is_suspect)
        most = max(most, new_losses)
        return outcome

    order, dispatch, _ = dispatched(behave, 40)
    assert len(order) == 40 and not dispatch.set_aside
    assert most < MAX_LOSSES_IN_A_ROW


def test_a_suspect_has_its_worker_for_itself_while_others_are_new() -> None:
    together: list[set[str]] = []

    class Watched(FakePool):
        def poll(self, timeout: float) -> list[Outcome]:
            together.append({("suspect" if order.is_suspect else "new") for order in self._in_hand})
            assert len(self._in_hand) == 1 or together[-1] == {"new"}
            return super().poll(timeout)

    Dispatch(Watched(poisoned({str(number): {3} for number in range(12)}))).run(shard(number) for number in range(24))
    assert together.index({"suspect"}) < len(together) - 1 - together[::-1].index({"new"})


def test_lost_workers_and_errors_are_counted_apart() -> None:
    def behave(order: Order, attempt: int) -> Outcome:
        if attempt < MAX_ATTEMPTS:
            return Outcome(order, error=OSError("busy"))
        return lost(order) if attempt == MAX_ATTEMPTS else done(order)

    order, dispatch, _ = dispatched(behave, 1)
    assert order == ["0"] and not dispatch.set_aside


def test_a_shard_that_failed_waits_before_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.engine.dispatch.PAUSE_SECONDS", 0.2)
    times: list[float] = []

    def behave(order: Order, _: int) -> Outcome:
        times.append(time.monotonic())
        return Outcome(order, error=OSError("busy")) if len(times) < 3 else done(order)

    dispatched(behave, 1)
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.1 <= first <= 0.5 and 0.4 <= second <= 1.4


def test_an_error_that_no_other_try_can_mend_stops_the_run_at_once() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return Outcome(order, error=UsageError("no such column")) if order.shard.id == "2" else done(order)

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

    def behave(order: Order, _: int) -> Outcome:
        done_rows["n"] += order.shard.rows
        return done(order, rejected=96 * order.shard.rows // 100)

    with pytest.raises(BfrError, match=r"192 of the first 200 rows .*'undecodable'.* --column"):
        dispatched(behave, 100, rows=50)
    assert done_rows["n"] <= 300


@pytest.mark.parametrize(
    ("count", "rows", "rejected"),
    [(19, 10, 10), (2, 500, 500), (14, 10, 3), (100, 10, 9)],
    ids=["a small run", "two large shards", "40 bad of 140", "nine of ten"],
)
def test_other_runs_go_on_to_their_end(count: int, rows: int, rejected: int) -> None:
    order, _, _ = dispatched(lambda order, _: done(order, rejected), count, rows)
    assert len(order) == count


def test_bad_rows_that_come_late_do_not_stop_a_run() -> None:
    order, _, _ = dispatched(lambda order, _: done(order, 10 if int(order.shard.id) > 30 else 0), 200)
    assert len(order) == 200


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
