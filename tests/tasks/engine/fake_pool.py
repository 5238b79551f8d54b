"""A pool whose workers behave as the test says."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from tasks.engine.dispatch import Dispatch
from tasks.engine.pool import Outcome, WorkerLostError
from tasks.runs.shards import Shard
from tasks.worker.job import Order

Behaviour = Callable[[Order, int], Outcome]


def shard(number: int, rows: int = 10) -> Shard:
    return Shard(str(number), "/a/x.parquet", "x.parquet", "1", number, number + 1, number * rows, rows)


def done(order: Order, rejected: int = 0) -> Outcome:
    """A commit; for a trial, only that the worker survived."""
    if order.trial is not None:
        return Outcome(order)
    rejected += order.shard.rows if order.unreadable else len(order.poison)
    rejects = {"undecodable": rejected} if rejected else {}
    shard = order.shard
    return Outcome(order, record={"shard": shard.id, "rows": shard.rows, "rejected": rejected, "rejects": rejects})


def lost(order: Order) -> Outcome:
    return Outcome(order, error=WorkerLostError("died"), worker_lost=True)


class FakePool:
    """One worker with room for two shards. `behave` decides the outcome of a shard at its n-th try; a shard that
    loses its worker takes its neighbour with it, as a dying process does."""

    def __init__(self, behave: Behaviour = lambda order, _: done(order)) -> None:
        self._behave, self._in_hand = behave, deque[Order]()
        self.tries = Counter[str]()
        self.orders: list[Order] = []

    def resize(self, left: int) -> None:
        assert left > 0

    def free_slots(self) -> int:
        return 0 if any(order.is_suspect for order in self._in_hand) else 2 - len(self._in_hand)

    def idle_workers(self) -> int:
        return int(not self._in_hand)

    def submit(self, order: Order) -> None:
        assert self.idle_workers() if order.is_suspect else self.free_slots()
        self.tries[order.shard.id] += 1
        self.orders.append(order)
        self._in_hand.append(order)

    def poll(self, timeout: float) -> list[Outcome]:
        outcomes = [self._behave(order, self.tries[order.shard.id]) for order in self._in_hand]
        if any(outcome.worker_lost for outcome in outcomes):
            outcomes = [lost(order) for order in self._in_hand]
        self._in_hand.clear()
        return outcomes

    def forget(self, order: Order) -> None: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


def dispatched(behave: Behaviour, count: int, rows: int = 10) -> tuple[list[str], Dispatch, FakePool]:
    """Ids of the shards in the order they were done."""
    order: list[str] = []
    pool = FakePool(behave)
    dispatch = Dispatch(pool, lambda record: order.append(record["shard"]))
    dispatch.run([shard(number, rows) for number in range(count)])
    return order, dispatch, pool


def poisoned(rows: dict[str, set[int]]) -> Behaviour:
    """Workers die on these rows of these shards and on no others."""

    def behave(order: Order, _: int) -> Outcome:
        touched = set(range(order.shard.rows) if order.trial is None else order.trial) - order.poison.keys()
        return lost(order) if touched & rows.get(order.shard.id, set()) else done(order)

    return behave
