"""Hands shards to workers and deals with what comes back. Knows neither Ray nor Prefect nor storage.

A shard is todo -> in hand -> done, or back to todo, or set aside after too many tries:

    the worker died           it may not be the shard's fault: `MAX_LOSSES` times, the last of them alone, after all
                              others, so that a shard which kills its worker takes no neighbour with it
    any other exception       storage trouble, say, which may pass: `MAX_ATTEMPTS` times
    BfrError                  trying again cannot help: the run stops at once
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bfr_models.errors import BfrError
from tasks._commits import Record
from tasks._pool import Outcome, Pool
from tasks._shards import Shard

MAX_ATTEMPTS = 3
MAX_LOSSES = 3
POLL_SECONDS = 0.25
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
        first = _FirstRows()
        in_hand = 0
        while not self.stop.is_set():
            while self.pool.free_slots() and (shard := todo.take(in_hand)):
                self.pool.submit(shard)
                in_hand += 1
            if not in_hand and todo.is_empty:
                return
            for outcome in self.pool.poll(POLL_SECONDS):
                in_hand -= 1
                if outcome.record is not None:
                    self.on_done(outcome.record)
                    first.check(outcome.record)
                elif isinstance(outcome.error, BfrError):
                    raise outcome.error
                elif not todo.put_back(outcome):
                    self.set_aside.append(outcome)


class _Todo:
    """The shards that are left: new ones, those to try again, and last, one by one, those under suspicion."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._new, self._again, self._suspects = iter(shards), deque[Shard](), deque[Shard]()
        self._exhausted = False
        self._errors, self._losses = Counter[str](), Counter[str]()

    @property
    def is_empty(self) -> bool:
        return self._exhausted and not self._again and not self._suspects

    def take(self, in_hand: int) -> Shard | None:
        """The next shard; None if there is none now, `in_hand` being under way."""
        if self._again:
            return self._again.popleft()
        if (shard := next(self._new, None)) is not None:
            return shard
        self._exhausted = True
        return self._suspects.popleft() if self._suspects and not in_hand else None

    def put_back(self, failed: Outcome) -> bool:
        """Keeps a shard for another try; False if it has had its share."""
        shard = failed.shard
        counter, limit = (self._losses, MAX_LOSSES) if failed.worker_lost else (self._errors, MAX_ATTEMPTS)
        counter[shard.id] += 1
        if counter[shard.id] >= limit:
            return False
        is_suspect = self._losses[shard.id] == MAX_LOSSES - 1
        (self._suspects if is_suspect else self._again).append(shard)
        return True


class _FirstRows:
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
            raise BfrError(
                f"stopped early: {self.rejected} of the first {self.rows} rows were rejected ({count} as {worst!r}); "
                "expected pictures in the column: check --column, and `rejected/` in the destination for the reasons"
            )
