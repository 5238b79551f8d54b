"""How far a run is: a bar on a terminal, a plain line now and then in a log. Written to standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


class RowProgress:
    """Counts rows as their shards are committed."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self._label, self._total = label, total
        self._start = self._done = done
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total, completed=done)

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line()

    def __enter__(self) -> RowProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        else:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        rate = (self._done - self._start) / max(self._last_line - self._began, 1e-9)
        print(f"{self._label}: {self._done}/{self._total} rows, {rate:.1f} rows/s", file=sys.stderr, flush=True)
