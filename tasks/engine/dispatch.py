"""Hands shards to workers and deals with what comes back. Knows neither Ray nor Prefect nor storage.

The states of a shard, and what ends each:

    state      held in                  event                               next state
    ---------  -----------------------  ----------------------------------  ---------------------------------
    new        _Todo._new               a worker has a free slot            in hand
    in hand    the pool                 its commit is there                 done
                                        its worker died                     suspect
                                        its worker died, it was alone       bisected
                                        any other exception                 waiting; set aside the 4th time
    waiting    _Todo._waiting           its pause is over                   in hand
    suspect    _Todo._suspects          nothing else is left or in hand     in hand, alone
    bisected   _suspects, _bisected     a trial has ended                   bisected: the next trial, alone again
                                        all but the poison rows committed   done
                                        its bisection gives up              set aside
    set aside  Dispatch.set_aside       -                                   reported when all others have ended

A dead worker proves nothing about its shard, and takes its other shard with it. Hence a suspect runs alone and last,
and only if it kills again is it bisected, down to the rows that kill (`bisection`). If one shard after the other loses
its worker, suspects come first, because they show whether anything can be done at all. Other exceptions are mostly
storage errors, which may pass. A BfrError, or a refusal such as a missing permission, ends the run at once, since
trying again cannot help.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

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
# A run that rejects this share of its first rows and shards has a wrong setting, --column for example.
EARLY_ROWS, EARLY_SHARDS, EARLY_SHARE = 200, 3, 0.95


@dataclass
class Dispatch:
    """One pass over the shards to do. `run` returns when each is done or set aside, or when `stop` is set."""

    pool: Pool
    on_done: Callable[[Record], None] = lambda record: None
    stop: threading.Event = field(default_factory=threading.Event)
    set_aside: list[Outcome] = field(default_factory=list)
    any_rejects: bool = False
    """Whether it goes on however many rows are rejected."""

    def run(self, shards: Iterable[Shard]) -> None:
        """Raises BfrError if there is no point in going on. What is committed stays."""
        todo = _Todo(shards)
        guard = _RejectRateGuard(over=self.any_rejects)
        in_hand = 0
        while not self.stop.is_set():
            while self.pool.free_slots() and (order := todo.take(in_hand)):
                self.pool.submit(order)
                in_hand += 1
            if not in_hand and todo.is_empty:
                return
            if not in_hand:  # workers are still loading, or all shards left are waiting
                self.stop.wait(POLL_SECONDS)
            for outcome in self.pool.poll(POLL_SECONDS):
                in_hand -= 1
                _log_outcome(outcome)
                if outcome.record is not None:
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
                elif not todo.put_back(outcome):
                    self.set_aside.append(outcome)


class _Todo:
    """The shards that are not done: new ones, those waiting for another attempt, and the suspects."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._new = iter(shards)
        self._waiting: list[tuple[float, str, Shard]] = []  # a heap, by the end of the pause
        self._suspects = deque[Shard | Bisection]()
        self._running_alone = ""  # the suspect that the last order was for; "" if it was for another shard
        self.lost_in_a_row = 0  # shards that became suspects since the last one was done
        self._bisected: dict[str, Bisection] = {}  # by shard id
        self._exhausted = False
        self._errors = Counter[str]()

    @property
    def is_empty(self) -> bool:
        return self._exhausted and not self._waiting and not self._suspects

    def take(self, in_hand: int) -> Order | None:
        """The next order while `in_hand` others are under way; None if there is none at the moment."""
        if in_hand and self._running_alone:
            return None
        suspects_first = bool(self._suspects) and self.lost_in_a_row >= MAX_LOST_IN_A_ROW
        if not suspects_first and (shard := self._unsuspected()):
            self._running_alone = ""
            return Order(shard)
        if in_hand or not self._suspects or (self._waiting and not suspects_first):
            return None
        suspect = self._suspects.popleft()
        if isinstance(suspect, Bisection):
            self._running_alone = suspect.shard.id
            return suspect.order
        self._running_alone = suspect.id
        return Order(suspect, is_suspect=True)

    def _unsuspected(self) -> Shard | None:
        if self._waiting and self._waiting[0][0] <= time.monotonic():
            return heappop(self._waiting)[2]
        shard = next(self._new, None)
        self._exhausted = shard is None
        return shard

    def put_back(self, ended: Outcome) -> bool:
        """Puts a shard that is not done in its next state; False if it is set aside."""
        shard = ended.order.shard
        if bisection := self._bisected.get(shard.id):
            bisection.observe(ended)
            if bisection.order is None:
                return False
            self._suspects.appendleft(bisection)
        elif ended.worker_lost and shard.id == self._running_alone:
            self._bisected[shard.id] = bisection = Bisection(shard)
            self._suspects.appendleft(bisection)
        elif ended.worker_lost:
            self._suspects.append(shard)
            self.lost_in_a_row += 1
        else:
            self._errors[shard.id] += 1
            if self._errors[shard.id] >= MAX_ATTEMPTS:
                return False
            # Random, so that the shards that one outage has sent back do not all return at the same moment.
            pause = PAUSE_SECONDS * 4 ** min(self._errors[shard.id] - 1, 4) * random.uniform(0.5, 1.5)
            heappush(self._waiting, (time.monotonic() + pause, shard.id, shard))
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
