"""The dispatcher, with workers that behave as the test says."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks.engine.dispatch import MAX_ATTEMPTS, Dispatch
from tasks.engine.pool import Outcome
from tasks.worker.job import Order
from tests.tasks.engine.fake_pool import FakePool, dispatched, done, lost, shard
from tests.tasks.engine.simulated_cluster import NoWait

pytestmark = pytest.mark.usefixtures("no_pauses")


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


def test_lost_workers_and_errors_are_counted_apart() -> None:
    def behave(order: Order, attempt: int) -> Outcome:
        if attempt < MAX_ATTEMPTS:
            return Outcome(order, error=OSError("busy"))
        return lost(order) if attempt == MAX_ATTEMPTS else done(order)

    order, dispatch, _ = dispatched(behave, 1)
    assert order == ["0"] and not dispatch.set_aside


def test_a_shard_that_failed_waits_before_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of the test's own: each look at it is a tenth of a second after the last."""
    monkeypatch.setattr("tasks.engine.dispatch.PAUSE_SECONDS", 20.0)
    clock = (number / 10 for number in count())
    times: list[float] = []

    def behave(order: Order, _: int) -> Outcome:
        times.append(next(clock))
        return Outcome(order, error=OSError("busy")) if len(times) < 3 else done(order)

    Dispatch(FakePool(behave), clock=clock.__next__, stop=NoWait()).run([shard(0)])
    first, second = times[1] - times[0], times[2] - times[1]
    assert 10 <= first < 31 and 40 <= second < 121  # half as long or one and a half times, and what it takes to look


def test_an_error_that_no_other_try_can_mend_stops_the_run_at_once() -> None:
    def behave(order: Order, _: int) -> Outcome:
        return Outcome(order, error=UsageError("no such column")) if order.shard.id == "2" else done(order)

    pool = FakePool(behave)
    with pytest.raises(UsageError, match="no such column"):
        Dispatch(pool).run([shard(number) for number in range(100)])
    assert pool.tries["2"] == 1 and len(pool.tries) <= 4


def test_a_set_stop_event_ends_the_run_with_what_is_done() -> None:
    order: list[str] = []
    dispatch = Dispatch(FakePool())
    dispatch.on_done = lambda record: (order.append(record["shard"]), len(order) == 4 and dispatch.stop.set())
    dispatch.run([shard(number) for number in range(100)])
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


def test_what_workers_have_in_hand_already_is_not_given_again() -> None:
    pool, records = FakePool(), list[str]()
    begun = [Order(shard(1)), Order(shard(7))]  # the second is of no shard to do
    for order in begun:
        pool.submit(order)
    Dispatch(pool, lambda record: records.append(record["shard"]), begun=begun).run([shard(n) for n in range(4)])
    assert sorted(records) == list("0123")
    assert pool.tries == Counter({"0": 1, "1": 1, "2": 1, "3": 1, "7": 1})


def test_what_was_begun_of_a_shard_that_has_changed_does_not_count() -> None:
    pool, records = FakePool(), list[str]()
    pool.submit(begun := Order(shard(1, rows=5)))
    Dispatch(pool, lambda record: records.append(record["rows"]), begun=[begun]).run([shard(1)])
    assert records == [10]


def test_what_was_begun_and_fails_is_tried_again() -> None:
    pool = FakePool(lambda order, attempt: done(order) if attempt > 1 else Outcome(order, error=OSError("busy")))
    pool.submit(begun := Order(shard(0)))
    dispatch = Dispatch(pool, begun=[begun])
    dispatch.run([shard(0)])
    assert pool.tries["0"] == 2 and not dispatch.set_aside
