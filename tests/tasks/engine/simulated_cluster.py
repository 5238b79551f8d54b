"""A pool whose workers, their deaths and the time are simulated: hours of many workers in seconds."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from math import inf

from tasks.engine.dispatch import Dispatch
from tasks.engine.pool import IN_HAND, Outcome, WorkerLostError
from tasks.engine.scaling import Limits, wanted_workers
from tasks.runs.shards import Shard
from tasks.worker.job import Order
from tests.tasks.engine.fake_pool import done

LOOK_SECONDS = 2.0  # between two looks at which nodes there are


@dataclass
class Conditions:
    """What the machines are like; times in seconds."""

    nodes: int = 1
    per_node: int = 8  # workers
    shard: float = 60.0  # that a shard takes, a fifth more or less
    slow: Mapping[int, float] = field(default_factory=dict)  # node -> how many times as long it takes there
    load: float = 30.0  # until a new worker is ready
    boot: float = 300.0  # until a node that went is replaced
    worker_lives: float = inf  # on average
    node_lives: float = inf
    poison: Mapping[str, Set[int]] = field(default_factory=dict)  # shard id -> rows that end the process
    seed: int = 0


@dataclass(eq=False)
class _Worker:
    node: int
    ready: float
    dies: float
    free: float = 0.0  # when it has done what it has in hand
    in_hand: list[Order] = field(default_factory=list)
    alive: bool = True

    def free_slots(self, now: float) -> int:
        if self.ready > now or (self.in_hand and self.in_hand[0].is_suspect):
            return 0
        return IN_HAND - len(self.in_hand)


class SimulatedCluster:
    """A `Pool`. Its time goes on when it is polled."""

    def __init__(self, conditions: Conditions) -> None:
        self.now, self.deaths, self.orders, self.most, self.worked = 0.0, 0, 0, 0, 0.0
        self._looked = -inf
        self._is, self._random = conditions, random.Random(conditions.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ended, self._forgotten = deque[Outcome](), set[int]()
        self._back = dict.fromkeys(range(conditions.nodes), 0.0)  # when each node is there
        self._crew: list[_Worker] = []
        for node in self._back:
            self._plan_death_of(node)

    def clock(self) -> float:
        return self.now

    def resize(self, left: int) -> None:
        if self.now - self._looked < LOOK_SECONDS:
            return
        self._looked = self.now
        there = [node for node, back in self._back.items() if back <= self.now]
        room = len(there) * self._is.per_node
        wanted = wanted_workers(Limits(), len(self._crew), room, left)
        idle = [each for each in self._crew if self._forgotten.issuperset(map(id, each.in_hand))]
        for worker in idle[: max(0, len(self._crew) - wanted)]:
            worker.alive = False
            self._crew.remove(worker)
        taken = Counter(worker.node for worker in self._crew)
        for node in there:
            for _ in range(min(self._is.per_node - taken[node], wanted - len(self._crew))):
                self._start_worker(node)
        self.most = max(self.most, len(self._crew))

    def free_slots(self) -> int:
        return sum([worker.free_slots(self.now) for worker in self._crew])

    def idle_workers(self) -> int:
        return sum([worker.free_slots(self.now) == IN_HAND for worker in self._crew])

    def workers(self) -> tuple[int, int]:
        return sum(worker.ready <= self.now for worker in self._crew), len(self._crew)

    def submit(self, order: Order) -> None:
        worker = max(self._crew, key=lambda worker: worker.free_slots(self.now))
        assert not (order.is_suspect and worker.in_hand)
        worker.in_hand.append(order)
        rows = range(order.shard.rows) if order.trial is None else order.trial
        seconds = self._is.shard * self._random.uniform(0.8, 1.2) * self._is.slow.get(worker.node, 1.0)
        seconds *= max(1, len(rows)) / order.shard.rows
        kills = not order.unreadable and (set(rows) - order.poison.keys()) & self._is.poison.get(order.shard.id, set())
        worker.free = max(worker.free, self.now) + seconds
        self.orders += 1
        end = partial(self._die, [worker]) if kills else partial(self._finish, worker, order, seconds)
        self._at(worker.free, end)

    def poll(self, timeout: float) -> list[Outcome]:
        until = self.now + timeout
        while self._events and not self._ended and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
        if not self._ended:
            self.now = until
        ended, self._ended = list(self._ended), deque()
        return ended

    def forget(self, order: Order) -> None:
        self._forgotten.add(id(order))

    def check(self) -> None: ...

    def close(self) -> None: ...

    def _start_worker(self, node: int) -> None:
        ready = self.now + self._is.load * (self.now > 0)
        worker = _Worker(node, ready, self._life(self._is.worker_lives))
        self._crew.append(worker)
        if worker.dies < inf:
            self._at(worker.dies, lambda: self._die([worker]))

    def _finish(self, worker: _Worker, order: Order, seconds: float) -> None:
        if worker.alive:
            worker.in_hand.remove(order)
            self._forgotten.discard(id(order))
            self.worked += seconds
            self._ended.append(done(order))

    def _die(self, workers: list[_Worker], *, node_lost: bool = False) -> None:
        for worker in workers:
            if not worker.alive:
                continue
            worker.alive = False
            self._crew.remove(worker)
            self.deaths += 1
            lost = WorkerLostError("died")
            self._ended += [
                Outcome(order, error=lost, worker_lost=True, node_lost=node_lost) for order in worker.in_hand
            ]

    def _plan_death_of(self, node: int) -> None:
        if self._is.node_lives < inf:
            self._at(self._life(self._is.node_lives), lambda: self._lose(node))

    def _lose(self, node: int) -> None:
        self._die([worker for worker in self._crew if worker.node == node], node_lost=True)
        self._back[node] = self.now + self._is.boot
        self._at(self._back[node], lambda: self._plan_death_of(node))

    def _life(self, mean: float) -> float:
        return self.now + (self._random.expovariate(1 / mean) if mean < inf else inf)

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heappush(self._events, (when, self._random.getrandbits(62), event))


class NoWait(threading.Event):
    """Time goes on by itself."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def simulated(shards: list[Shard], conditions: Conditions) -> tuple[SimulatedCluster, Dispatch, list[str]]:
    """Runs the dispatcher over the shards; the ids in the order in which they were done."""
    cluster, order = SimulatedCluster(conditions), list[str]()
    dispatch = Dispatch(cluster, lambda record: order.append(record["shard"]), NoWait(), clock=cluster.clock)
    dispatch.run(shards)
    return cluster, dispatch, order
