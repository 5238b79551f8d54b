"""Hands shards to workers and deals with what comes back. Knows neither Ray nor Prefect nor storage.

The states of a shard, and what ends each:

    state      held in                  event                               next state
    ---------  -----------------------  ----------------------------------  ---------------------------------
    new        _Todo._new               a worker has a free slot            in hand
    in hand    Dispatch._in_hand        its commit is there                 done
                                        it takes long, a worker is idle     in hand twice
                                        its node went, for the first time   waiting, without a pause
                                        its worker died                     suspect
                                        its worker died, it was alone       bisected
                                        any other exception                 waiting; set aside the 4th time
    waiting    _Todo._waiting           its pause is over                   in hand
    suspect    _Todo._suspects          nothing else is left to give        in hand, alone in its worker
    bisected   _Todo._bisected          nothing else is left to give        in hand, alone: the next trial
                                        all but the poison rows committed   done
                                        its bisection gives up              set aside
    set aside  Dispatch.set_aside       -                                   reported when all others have ended

A dead worker proves nothing about its shard, and takes its other shard with it. Hence a suspect runs alone in a worker
and last, and only if it kills again is it bisected, down to the rows that kill (`bisection`). If one shard after the
other loses its worker, suspects come first, because they show whether anything can be done at all. Other exceptions
are mostly storage errors, which may pass. A BfrError, or a refusal such as a missing permission, ends the run at once,
since trying again cannot help.

At the end of a run idle workers get shards a second time that take much longer than most have: their worker may be
slow, or cut off. The first commit counts, and nobody waits for the other attempt.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from statistics import median

from bfr_models.errors import BfrError
from tasks.engine.bisection import Bisection
from tasks.engine.pool import Outcome, Pool
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.storage.redaction import redact_text
from tasks.worker.job import Order

_log = logging.getLogger(__name__)

MAX_ATTEMPTS = 4
PAUSE_SECONDS = 5.0  # before the second attempt, four times as long before each further one, +- 50 % at random
POLL_SECONDS = 0.25
MAX_LOST_IN_A_ROW = 4  # shards that lose their worker with none done in between; then suspects come first
LONG = 1.5  # times the median of LAST_SHARDS: a shard that takes this long is given a second time
LAST_SHARDS = 100
# A run that rejects this share of its first rows and shards has a wrong setting, --column for example.
EARLY_ROWS, EARLY_SHARDS, EARLY_SHARE = 200, 3, 0.95


@dataclass
class _InHand:
    """A shard that workers work on, by one order or by two."""

    orders: list[Order]
    since: float  # of the first

    @property
    def may_be_doubled(self) -> bool:
        return len(self.orders) == 1 and not self.orders[0].is_suspect


@dataclass
class Dispatch:
    """One pass over the shards to do. `run` returns when each is done or set aside, or when `stop` is set."""

    pool: Pool
    on_done: Callable[[Record], None] = lambda record: None
    stop: threading.Event = field(default_factory=threading.Event)
    set_aside: list[Outcome] = field(default_factory=list)
    any_rejects: bool = False
    """Whether it goes on however many rows are rejected."""
    begun: Sequence[Order] = ()
    """Orders that the pool has in hand already; they count if they are for one of the shards to do."""
    clock: Callable[[], float] = time.monotonic
    _in_hand: dict[str, _InHand] = field(default_factory=dict)  # by shard id
    _seconds: deque[float] = field(default_factory=partial(deque, maxlen=LAST_SHARDS))  # of the last that were done

    def run(self, shards: Sequence[Shard], later: int = 0) -> None:
        """`later`: how many shards will follow in other passes. Raises BfrError if there is no point in going on. What
        is committed stays."""
        todo = _Todo(self._not_begun(shards), self.clock)
        guard = _RejectRateGuard(over=self.any_rejects)
        left = len(shards)
        while left and not self.stop.is_set():
            self.pool.resize(left + later)
            while order := self._next(todo):
                self._in_hand.setdefault(order.shard.id, _InHand([], self.clock())).orders.append(order)
                self.pool.submit(order)
            if not self._in_hand:  # workers are still loading, or all shards left are waiting
                self.stop.wait(POLL_SECONDS)
            for outcome in self.pool.poll(POLL_SECONDS):
                if (ended := self._ended(outcome)) is None:
                    continue
                _log_outcome(outcome)
                if outcome.record is not None:
                    left -= 1
                    self._seconds.append(self.clock() - ended.since)
                    todo.lost_in_a_row = 0
                    self.on_done(outcome.record)
                    guard.check(outcome.record)
                elif isinstance(outcome.error, BfrError):
                    raise outcome.error
                elif _is_refusal(outcome.error):
                    raise BfrError(
                        f"storage refuses: {type(outcome.error).__name__}: {outcome.error}; expected a destination "
                        "that exists, has space left and is writable; fix that, then run the same command again"
                    ) from outcome.error
                elif not ended.orders and not todo.put_back(outcome):
                    left -= 1
                    self.set_aside.append(outcome)

    def _not_begun(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards that no worker has in hand; those that one has are noted."""
        wanted = {shard.id: shard for shard in shards} if self.begun else {}
        for order in self.begun:
            if wanted.get(order.shard.id) == order.shard:
                self._in_hand[order.shard.id] = _InHand([order], self.clock())
        return [shard for shard in shards if shard.id not in self._in_hand]

    def _next(self, todo: _Todo) -> Order | None:
        """What a worker that has room for it should do now; None if there is nothing, or no room."""
        idle = self.pool.idle_workers() > 0
        if self.pool.free_slots() and (order := todo.take(has_idle=idle)):
            return order
        return self._long_in_hand() if idle else None

    def _long_in_hand(self) -> Order | None:
        """An order to give a second time."""
        if not self._seconds:
            return None
        entries = (entry for entry in self._in_hand.values() if entry.may_be_doubled)
        first = min(entries, key=lambda entry: entry.since, default=None)
        if first is None or self.clock() - first.since < LONG * median(self._seconds):
            return None
        return replace(first.orders[0])

    def _ended(self, outcome: Outcome) -> _InHand | None:
        """The shard that an order was for, without this order. None if it is done, by another order: of this pass or of
        the one before."""
        name = outcome.order.shard.id
        entry = self._in_hand.get(name)
        mine = [order for order in entry.orders if order is outcome.order] if entry else []
        if entry is None or not mine:
            return None
        entry.orders = [order for order in entry.orders if order is not outcome.order]
        if outcome.record is not None or not entry.orders:
            del self._in_hand[name]
            for order in entry.orders:
                self.pool.forget(order)
        return entry


class _Todo:
    """The shards that are not done: new ones, those waiting for another attempt, and the suspects."""

    def __init__(self, shards: Iterable[Shard], clock: Callable[[], float]) -> None:
        self._new, self._clock = iter(shards), clock
        self._waiting: list[tuple[float, str, Shard]] = []  # a heap, by the end of the pause
        self._suspects = deque[Shard]()
        self._bisected = deque[Bisection]()
        self._bisections: dict[str, Bisection] = {}  # all of them, by shard id
        self._errors, self._nodes_lost = Counter[str](), Counter[str]()
        self.lost_in_a_row = 0  # shards that became suspects since the last one was done

    def take(self, *, has_idle: bool) -> Order | None:
        """The next order; None if there is none at the moment. `has_idle`: whether a worker has nothing in hand."""
        alone = bool(self._suspects or self._bisected)
        if not (alone and self.lost_in_a_row >= MAX_LOST_IN_A_ROW) and (shard := self._unsuspected()):
            return Order(shard)
        if has_idle and self._suspects:
            return Order(self._suspects.popleft(), is_suspect=True)
        return self._bisected.popleft().order if has_idle and self._bisected else None

    def _unsuspected(self) -> Shard | None:
        if self._waiting and self._waiting[0][0] <= self._clock():
            return heappop(self._waiting)[2]
        return next(self._new, None)

    def put_back(self, ended: Outcome) -> bool:
        """Puts a shard that is not done in its next state; False if it is set aside."""
        shard = ended.order.shard
        if bisection := self._bisections.get(shard.id):
            bisection.observe(ended)
            if bisection.order is None:
                return False
            self._bisected.appendleft(bisection)
        elif ended.node_lost and not self._nodes_lost[shard.id]:
            self._nodes_lost[shard.id] += 1
            heappush(self._waiting, (self._clock(), shard.id, shard))
        elif ended.worker_lost and ended.order.is_suspect:
            self._bisections[shard.id] = bisection = Bisection(shard)
            self._bisected.appendleft(bisection)
        elif ended.worker_lost:
            self._suspects.append(shard)
            self.lost_in_a_row += 1
        else:
            self._errors[shard.id] += 1
            if self._errors[shard.id] >= MAX_ATTEMPTS:
                return False
            # Random, so that the shards that one outage has sent back do not all return at the same moment.
            pause = PAUSE_SECONDS * 4 ** min(self._errors[shard.id] - 1, 4) * random.uniform(0.5, 1.5)
            heappush(self._waiting, (self._clock() + pause, shard.id, shard))
        return True


def _log_outcome(outcome: Outcome) -> None:
    """Logs shards that failed or rejected rows."""
    shard, record = outcome.order.shard, outcome.record
    name = f"shard {shard.id} (rows {shard.first_row} to {shard.first_row + shard.rows - 1} of {shard.name})"
    name += outcome.node and f" on {outcome.node}"
    if outcome.error is not None:
        _log.warning("%s", redact_text(f"{name}: {type(outcome.error).__name__}: {outcome.error}"))
    elif record is not None and record["rejected"]:
        _log.info("%s: %d of %d rows rejected: %s", name, record["rejected"], record["rows"], record["rejects"])


def _is_refusal(error: BaseException | None) -> bool:
    """Whether storage refuses for good: no permission, no such bucket, no space left."""
    if isinstance(error, PermissionError | FileNotFoundError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class _RejectRateGuard:
    """Stops a run that would reject a whole dataset because of one wrong setting."""

    def __init__(self, *, over: bool) -> None:
        self.shards = self.rows = self.rejected = 0
        self.codes = Counter[str]()
        self.over = over

    def check(self, record: Record) -> None:
        if self.over:
            return
        self.shards += 1
        self.rows += record["rows"]
        self.rejected += record["rejected"]
        self.codes.update(record["rejects"])
        if self.shards < EARLY_SHARDS or self.rows < EARLY_ROWS:
            return
        self.over = True
        if self.rejected >= EARLY_SHARE * self.rows:
            worst, count = self.codes.most_common(1)[0]
            expected = "images in the column (check --column)"
            if worst == "worker_killed":
                expected = (
                    "workers that survive (check their logs, and their memory: a smaller --batch-size needs less)"
                )
            raise BfrError(
                f"stopped early: {self.rejected} of the first {self.rows} rows were rejected ({count} as {worst!r}); "
                f"expected {expected}; `rejected/` in the destination has the reasons"
            )
