"""Finds the rows of a shard that kill or hang their worker, so that the others can be restored.

A trial restores some of the rows and commits nothing; what counts is whether the worker survives it:

    read only -> halves of the shard -> halves of each killer -> ... -> single rows, twice -> the shard without them

The last step is an ordinary attempt, and its commit rejects the poison rows as `worker_killed`. Three more kinds of
rows are rejected with this code, so that every shard is done in the end:

    untested     those that are left once the search has cost MAX_LOSSES workers
    all          if the shard still kills without its poison rows: it kills only as a whole (memory, for example)
    all, unread  if the worker dies while it reads the rows
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from tasks.engine.pool import Outcome
from tasks.runs.shards import Shard
from tasks.worker.job import Order

MAX_LOSSES = 64  # workers that the search may cost: each replacement has to load the method again
MAX_ERRORS = 3  # in a row that are no deaths: storage errors, which tell nothing about the rows
ROW_STRIKES, READ_STRIKES = 2, 3  # deaths until a row, or the reading, is to blame: a machine may go by itself, too


@dataclass
class Bisection:
    """The state of one shard's trials; `order` is the next one, None once the shard is given up."""

    shard: Shard
    poison: dict[int, str] = field(default_factory=dict)
    losses: int = 0
    errors: int = 0
    _trials: deque[range] = field(init=False)
    _strikes: int = 0  # workers that the current order has killed
    _unreadable: str | None = None
    _given_up: bool = False

    def __post_init__(self) -> None:
        self._trials = deque([range(0), *_halves(range(self.shard.rows))])

    @property
    def order(self) -> Order | None:
        """The next thing for a worker to do; None once the shard is given up."""
        if self._given_up or self.errors >= MAX_ERRORS:
            return None
        if self._trials:
            return Order(self.shard, trial=self._trials[0], is_suspect=True)
        return Order(self.shard, poison=dict(self.poison), unreadable=self._unreadable, is_suspect=True)

    def observe(self, outcome: Outcome) -> None:
        """Decides on the next order by how the last one ended."""
        if not outcome.worker_lost:
            self.errors = self.errors + 1 if outcome.error else 0
            if not outcome.error:
                self._next_trials()
            return
        self.losses += 1
        self._strikes += 1
        if not self._trials:
            if self._strikes >= ROW_STRIKES:
                self._reject_more(str(outcome.error))
            return
        rows = self._trials[0]
        if len(rows) == 1 and self._strikes >= ROW_STRIKES:
            self.poison[rows[0]] = f"alone in its worker, this row ended it {self._strikes} times: {outcome.error}"
            self._next_trials()
        elif not rows and self._strikes >= READ_STRIKES:
            self._reject_unread(str(outcome.error))
        elif len(rows) > 1:
            self._next_trials(*_halves(rows))
        if self._trials and self.losses >= MAX_LOSSES:
            self._reject(chain(*self._trials), f"untested: its shard had ended {self.losses} workers: {outcome.error}")

    def _reject_more(self, error: str) -> None:
        """For a shard that kills even without its poison rows: rejects all rows, then all unread, then gives up."""
        if self._unreadable:
            self._given_up = True
        elif len(self.poison) < self.shard.rows:
            why = f"without the rows that do so alone, its shard ended the worker {self._strikes} times: {error}"
            self._reject(range(self.shard.rows), why)
        else:
            self._reject_unread(error)

    def _reject(self, rows: Iterable[int], why: str) -> None:
        self.poison = dict.fromkeys(rows, why) | self.poison
        self._trials.clear()
        self._strikes = 0

    def _reject_unread(self, error: str) -> None:
        self._unreadable = f"reading its rows ended the worker {self._strikes} times: {error}"
        self._trials.clear()
        self._strikes = 0

    def _next_trials(self, *instead: range) -> None:
        """Ends the current trial, or replaces it by smaller ones."""
        self._trials.popleft()
        self._trials.extendleft(reversed(instead))
        self._strikes = 0


def _halves(rows: range) -> list[range]:
    half = len(rows) // 2
    return [part for part in (rows[:half], rows[half:]) if part]
