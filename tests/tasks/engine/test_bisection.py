"""The rows that kill their worker are found, and their neighbours restored."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.engine.bisection import MAX_LOSSES
from tasks.engine.dispatch import Dispatch
from tasks.engine.pool import Outcome
from tasks.engine.ray_pool import MAX_LOSSES_IN_A_ROW
from tasks.worker.job import Order
from tests.tasks.engine.fake_pool import FakePool, dispatched, done, lost, poisoned, shard

pytestmark = pytest.mark.usefixtures("no_pauses")


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

    Dispatch(Watched(poisoned({str(number): {3} for number in range(12)}))).run([shard(number) for number in range(24)])
    assert together.index({"suspect"}) < len(together) - 1 - together[::-1].index({"new"})
