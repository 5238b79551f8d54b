"""A trace of a run's workers in Chrome's format, for chrome://tracing or ui.perfetto.dev: a process per worker, and a
track per thread of it. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from bfr_models.errors import UsageError

Event = dict[str, Any]
MICRO = 1e6


class TraceFile:
    """Written shard by shard, so that an interrupted run leaves one as well (its last bracket may be missing)."""

    def __init__(self, path: str | None) -> None:
        """Without a path nothing is written. UsageError if it cannot be."""
        self._workers: dict[str, int] = {}
        self._threads: dict[str, dict[str, int]] = {}  # of each worker, by name
        self._file = None if path is None else _opened(path)

    def add(self, trace: dict[str, Any] | None) -> None:
        """Appends what a worker tells of one shard."""
        if self._file is None or not trace:
            return
        worker, new = trace["worker"], trace["worker"] not in self._workers
        number = self._workers.setdefault(worker, len(self._workers))
        if new:
            name = {"name": f"worker {worker}, process {trace['pid']}"}
            self._write({"name": "process_name", "ph": "M", "args": name, "pid": number, "tid": 0})
        threads = self._threads.setdefault(worker, {})
        for stage, since, seconds, thread in trace["spans"]:
            if thread not in threads:
                threads[thread] = len(threads)
                place = {"pid": number, "tid": threads[thread]}
                self._write({"name": "thread_name", "ph": "M", "args": {"name": thread}, **place})
            times = {"ts": round(since * MICRO, 1), "dur": round(seconds * MICRO, 1)}
            place = {"pid": number, "tid": threads[thread]}
            self._write({"name": stage, "cat": "stage", "ph": "X", **times, **place})

    def _write(self, event: Event) -> None:
        assert self._file is not None, "only called while it is open"
        self._file.write(("[\n" if self._file.tell() == 0 else ",\n") + json.dumps(event))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.write("[\n]\n" if self._file.tell() == 0 else "\n]\n")
            self._file.close()


def _opened(path: str) -> TextIO:
    try:
        return Path(path).open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"expected a file to write for --trace, found {path!r}: {error.strerror}") from None
