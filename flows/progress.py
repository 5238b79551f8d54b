"""Progress on standard error: a bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_SECONDS = 10.0


class _Progress:
    columns: ClassVar[tuple[type[ProgressColumn], ...]]

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        self._label, self._total = label, total
        self._start = self._done = done
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (column() for column in self.columns)
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total, completed=done)

    def reach(self, done: int) -> None:
        self._done = done
        if self._bar:
            self._bar.update(self._task, completed=done)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line()

    def __enter__(self) -> Self:
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
        print(f"{self._label}: {self._text(rate)}", file=sys.stderr, flush=True)

    def _text(self, rate: float) -> str:
        raise NotImplementedError


class RowProgress(_Progress):
    """Counts rows as their shards are committed."""

    columns = (MofNCompleteColumn, TimeRemainingColumn)

    def advance(self, rows: int) -> None:
        self.reach(self._done + rows)

    def _text(self, rate: float) -> str:
        return f"{self._done}/{self._total} rows, {rate:.1f} rows/s"


class ByteProgress(_Progress):
    """Counts the bytes of one file; they go back to 0 if a download starts over."""

    columns = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn)

    def _text(self, rate: float) -> str:
        total = "" if self._total is None else f" of {self._total / 2**20:.1f}"
        return f"{self._done / 2**20:.1f}{total} MiB, {max(rate, 0) / 2**20:.1f} MiB/s"
