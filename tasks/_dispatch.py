"""Hands shards to workers and deals with what comes back. Knows neither Ray nor Prefect nor storage.

A shard is todo -> in hand -> done, or back to todo, or set aside after too many tries:

    the worker died           it may not be the shard's fault: `MAX_LOSSES` times
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
        todo, again = iter(shards), deque[Shard]()
        errors, losses = Counter[str](), Counter[str]()
        first = _FirstRows()
        in_hand, exhausted = 0, False
        while not self.stop.is_set():
            while self.pool.free_slots() and not (exhausted and not again):
                shard = again.popleft() if again else next(todo, None)
                if shard is None:
                    exhausted = True
                    continue
                self.pool.submit(shard)
                in_hand += 1
            if exhausted and not again and not in_hand:
                return
            for outcome in self.pool.poll(POLL_SECONDS):
                in_hand -= 1
                if outcome.record is not None:
                    self.on_done(outcome.record)
                    first.check(outcome.record)
                elif self._may_try_again(outcome, errors, losses):
                    again.append(outcome.shard)
                else:
                    self.set_aside.append(outcome)

    def _may_try_again(self, outcome: Outcome, errors: Counter[str], losses: Counter[str]) -> bool:
        if isinstance(outcome.error, BfrError):
            raise outcome.error
        counter, limit = (losses, MAX_LOSSES) if outcome.worker_lost else (errors, MAX_ATTEMPTS)
        counter[outcome.shard.id] += 1
        return counter[outcome.shard.id] < limit


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
