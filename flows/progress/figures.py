"""What a run has come to so far, by the records of its shards: what its bar, its log and its metrics tell."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tasks.runs.outcomes import CORRECTED, KEPT_ORIGINAL, RESTORED, outcome_word

WINDOW = 120.0
"""Seconds that rates are taken over: a run's beginning says little about its end."""

Workers = Callable[[], tuple[int, int]]
"""How many workers are ready, and how many there are to be."""


@dataclass
class RunFigures:
    """The sums over the shards that this process has seen done; `done` counts the rows of earlier ones as well."""

    method: str
    destination: str
    total: int  # rows of the run
    done: int
    began: float = field(default_factory=time.monotonic)  # since when they are being done
    workers: Workers = lambda: (0, 0)
    rejected: int = 0
    faces: int = 0
    shards: int = 0
    accelerator_seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)  # of faces
    rejects: Counter[str] = field(default_factory=Counter)  # of rows, by code
    done_before: int = field(init=False)  # rows that were done when this process began
    _seen: deque[tuple[float, int, float]] = field(default_factory=deque)  # (time, done, accelerator seconds)

    def __post_init__(self) -> None:
        self.done_before = self.done
        self._seen.append((self.began, self.done, 0.0))

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds the record of one shard."""
        self.shards += 1
        self.done += record["rows"]
        self.rejected += record["rejected"]
        self.faces += record.get("faces", 0)
        self.accelerator_seconds += record.get("accelerator_seconds", 0.0)
        for outcome, count in record.get("outcomes", {}).items():
            self.outcomes[outcome_word(outcome)] += count
        self.rejects.update(record["rejects"])
        now = time.monotonic()
        self._seen.append((now, self.done, self.accelerator_seconds))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW:
            self._seen.popleft()

    @property
    def rows_per_second(self) -> float:
        since, done, _ = self._seen[0]
        return (self.done - done) / max(time.monotonic() - since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None before the first shard is done, and after the last."""
        rate, left = self.rows_per_second, self.total - self.done
        return left / rate if rate and left else None

    @property
    def busy(self) -> float | None:
        """The share of the workers' time in which their accelerators, or the CPU in their place, run the method."""
        since, _, before = self._seen[0]
        available = (time.monotonic() - since) * self.workers()[0]
        return min(1.0, (self.accelerator_seconds - before) / available) if available and self.shards else None

    @property
    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        ready, wanted = self.workers()
        counts = {name: self.outcomes[name] for name in (RESTORED, CORRECTED, KEPT_ORIGINAL)}
        return {
            "done": self.done, "total": self.total, "rejected": self.rejected, "faces": self.faces, **counts,
            "rows_per_second": round(self.rows_per_second, 3), "seconds_left": self.seconds_left,
            "workers_ready": ready, "workers": wanted, "accelerator_busy": self.busy, "destination": self.destination,
        }  # fmt: skip

    @property
    def pace(self) -> str:
        """How far it is, and how fast."""
        left = "" if self.seconds_left is None else f", {timedelta(seconds=round(self.seconds_left))} left"
        return f"{self.done}/{self.total} rows, {self.rows_per_second:.1f} rows/s{left}"

    @property
    def counts(self) -> str:
        """What became of the rows and their faces."""
        found = (f"{self.outcomes[name]} {name.replace('_', ' ')}" for name in (RESTORED, CORRECTED, KEPT_ORIGINAL))
        return f"{self.faces} faces: {', '.join(found)}; {self.rejected} rows rejected"

    @property
    def crew(self) -> str:
        """Who works on them, and how much of the time."""
        ready, wanted = self.workers()
        busy = "" if self.busy is None else f", accelerator {100 * self.busy:.0f} % busy"
        return f"{ready} of {wanted} workers{busy}"
