"""Progress on standard error: a bar on a terminal, a logged line every few seconds elsewhere.

The lines are logged in either case, so that a log that is kept elsewhere has them: beside a bar, at a level that only
`--verbose` shows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, ClassVar, Self

from rich.console import Console, RenderableType
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
from rich.text import Text

from flows.progress.output import output
from tasks.storage.waits import NOTE

LINE_SECONDS = 10.0
SILENT_SECONDS = 60.0  # after which a line comes although nothing has moved
_TICK = 0.5

_log = logging.getLogger(__name__)


class ProgressDisplay:
    """A bar or lines about `done` of `total`, from `__enter__` to `__exit__`."""

    columns: ClassVar[tuple[type[ProgressColumn], ...]]

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        self._label, self._total = label, total
        self._start = self._done = done
        self._began = self._last_line = time.monotonic()
        self._told: int | None = None  # what the last line said was done
        self._ended = threading.Event()
        self._bar: Progress | None = None
        if output.has_bars:
            columns = (column() for column in self.columns)
            self._bar = _Bar(self, TextColumn("{task.description}"), BarColumn(), *columns)
            self._task = self._bar.add_task(label, total=total, completed=done)

    def reach(self, done: int) -> None:
        """Says how much is done in all."""
        self._done = done
        if self._bar:
            self._bar.update(self._task, completed=done)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        threading.Thread(target=self._tick, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()
        if self._done != self._told:
            self._line()

    def detail(self) -> str:
        """What stands below the bar, line by line; nothing by default."""
        return ""

    def figures(self) -> dict[str, Any]:
        """What the line says, for those who read it by a program."""
        return {"done": self._done, "total": self._total}

    def text(self, rate: float) -> str:
        """What the line says, at this many a second."""
        raise NotImplementedError

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            since = time.monotonic() - self._last_line
            if since >= (LINE_SECONDS if self._done != self._told else SILENT_SECONDS):
                self._line()

    def _line(self) -> None:
        self._last_line, self._told = time.monotonic(), self._done
        rate = (self._done - self._start) / max(self._last_line - self._began, 1e-9)
        level = logging.INFO if self._bar else NOTE
        _log.log(level, "%s: %s", self._label, self.text(rate), extra={"figures": self.figures()})


class _Bar(Progress):
    """The bar, and below it what the display has to tell."""

    def __init__(self, display: ProgressDisplay, *columns: ProgressColumn) -> None:
        self._display = display
        super().__init__(*columns, console=Console(stderr=True), refresh_per_second=4)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for line in self._display.detail().splitlines():
            yield Text(line, overflow="ellipsis", no_wrap=True)


class RowProgress(ProgressDisplay):
    """Counts rows as their shards are done."""

    columns = (MofNCompleteColumn, TimeRemainingColumn)

    def advance(self, rows: int) -> None:
        self.reach(self._done + rows)

    def text(self, rate: float) -> str:
        return f"{self._done}/{self._total} rows, {rate:.1f} rows/s"


class ByteProgress(ProgressDisplay):
    """Counts the bytes of one file; they go back to 0 if a download starts over."""

    columns = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn)

    def text(self, rate: float) -> str:
        total = "" if self._total is None else f" of {self._total / 2**20:.1f}"
        return f"{self._done / 2**20:.1f}{total} MiB, {max(rate, 0) / 2**20:.1f} MiB/s"
