"""Hands shards to workers and deals with what comes back. Knows neither Ray nor Prefect nor storage.

A shard is todo -> in hand -> done, or back to todo, or set aside after too many tries:

    the worker died           it may not be the shard's fault: once more, alone, after all others, so that a shard
                              which kills its worker takes no neighbour with it; then bisected, down to the rows
                              that kill (`_bisection`). Where workers die over one shard after the other the suspects
                              come first: they show whether anything can be done
    any other exception       storage trouble, say, which may pass: `MAX_ATTEMPTS` times, with a pause before each
    BfrError, no permission   trying again cannot help: the run stops at once
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
PAUSE_SECONDS = 5.0  # before the second attempt, and four times as long before each further one, give or take a half
POLL_SECONDS = 0.25
MAX_LOST_IN_A_ROW = 4  # shards that lose their worker with none done in between: then suspects are next
EARLY_ROWS = 200  # a run that rejects nearly all of its first rows, over some shards, has a wrong setting
EARLY_SHARDS = 3
EARLY_SHARE = 0.95


@dataclass
class Dispatch:
    """One pass over the shards that are left. `run` returns when all are done or set aside, or `stop` is set."""

    pool: Pool
    on_done: Callable[[Record], None] = lambda record: None
    stop: threading.Event = field(default_factory=threading.Event)
    set_aside: list[Outcome] = field(default_factory=list)

    def run(self, shards: Iterable[Shard]) -> None:
        """Raises BfrError where going on makes no sense. What is committed stays."""
        todo = _Todo(shards)
        first = _RejectRateGuard()
        in_hand = 0
        while not self.stop.is_set():
            while self.pool.free_slots() and (order := todo.take(in_hand)):
                self.pool.submit(order)
                in_hand += 1
            if not in_hand and todo.is_empty:
                return
            if not in_hand:  # workers are loading, or all that is left waits for its next attempt
                self.stop.wait(POLL_SECONDS)
            for outcome in self.pool.poll(POLL_SECONDS):
                in_hand -= 1
                _log_outcome(outcome)
                if outcome.record is not None:
                    todo.lost_in_a_row = 0
                    self.on_done(outcome.record)
                    first.check(outcome.record)
                elif isinstance(outcome.error, BfrError):
                    raise outcome.error
                elif _is_refusal(outcome.error):
                    raise BfrError(
                        f"storage refuses: {type(outcome.error).__name__}: {outcome.error}; expected a destination "
                        "that is there, has room and may be written to; mend that, then run the same command again"
                    ) from outcome.error
                elif not todo.put_back(outcome):
                    self.set_aside.append(outcome)


class _Todo:
    """The shards that are left: new ones, those to try again, and last, one by one, those under suspicion; these first
    while nothing else gets done."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._new = iter(shards)
        self._again: list[tuple[float, str, Shard]] = []  # a heap, by the time before which it is not tried again
        self._suspects = deque[Shard | Bisection]()
        self._alone = ""  # the suspect whose order was the last, if that was one's
        self.lost_in_a_row = 0  # shards that became suspects since one was done
        self._bisected: dict[str, Bisection] = {}
        self._exhausted = False
        self._errors = Counter[str]()

    @property
    def is_empty(self) -> bool:
        return self._exhausted and not self._again and not self._suspects

    def take(self, in_hand: int) -> Order | None:
        """The next order; None if there is none now, `in_hand` being under way."""
        if in_hand and self._alone:
            return None
        suspects_first = bool(self._suspects) and self.lost_in_a_row >= MAX_LOST_IN_A_ROW
        if not suspects_first and (shard := self._unsuspected()):
            self._alone = ""
            return Order(shard)
        if in_hand or not self._suspects or (self._again and not suspects_first):
            return None
        suspect = self._suspects.popleft()
        if isinstance(suspect, Bisection):
            self._alone = suspect.shard.id
            return suspect.order
        self._alone = suspect.id
        return Order(suspect, is_suspect=True)

    def _unsuspected(self) -> Shard | None:
        if self._again and self._again[0][0] <= time.monotonic():
            return heappop(self._again)[2]
        shard = next(self._new, None)
        self._exhausted = shard is None
        return shard

    def put_back(self, ended: Outcome) -> bool:
        """Keeps a shard that is not done for another try; False if it has had its share."""
        shard = ended.order.shard
        if bisection := self._bisected.get(shard.id):
            bisection.ended(ended)
            if bisection.order is None:
                return False
            self._suspects.appendleft(bisection)
        elif ended.worker_lost and shard.id == self._alone:
            self._bisected[shard.id] = bisection = Bisection(shard)
            self._suspects.appendleft(bisection)
        elif ended.worker_lost:
            self._suspects.append(shard)
            self.lost_in_a_row += 1
        else:
            self._errors[shard.id] += 1
            if self._errors[shard.id] >= MAX_ATTEMPTS:
                return False
            pause = PAUSE_SECONDS * 4 ** min(self._errors[shard.id] - 1, 4) * random.uniform(0.5, 1.5)
            heappush(self._again, (time.monotonic() + pause, shard.id, shard))
        return True


def _log_outcome(outcome: Outcome) -> None:
    """What of a shard is worth a line of the run's log."""
    shard, record = outcome.order.shard, outcome.record
    name = f"shard {shard.id} (rows {shard.first_row} to {shard.first_row + shard.rows - 1} of {shard.name})"
    if outcome.error is not None:
        _log.warning("%s", redact_text(f"{name}: {type(outcome.error).__name__}: {outcome.error}"))
    elif record is not None and record["rejected"]:
        _log.info("%s: %d of %d rows rejected: %s", name, record["rejected"], record["rows"], record["rejects"])


def _is_refusal(error: BaseException | None) -> bool:
    """Whether storage says no for good: no permission, no such bucket, no room."""
    if isinstance(error, PermissionError | FileNotFoundError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class _RejectRateGuard:
    """Stops a run that would mark a whole dataset as rejected for one wrong setting."""

    def __init__(self) -> None:
        self.shards = self.rows = self.rejected = 0
        self.codes = Counter[str]()
        self.over = False

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
            expected = "pictures in the column: check --column"
            if worst == "worker_killed":
                expected = "workers that live: check their memory (a smaller --batch-size), their logs"
            raise BfrError(
                f"stopped early: {self.rejected} of the first {self.rows} rows were rejected ({count} as {worst!r}); "
                f"expected {expected}, and `rejected/` in the destination for the reasons"
            )
