"""Threads for work that cannot be interrupted, and the end of a process in which such work is still running."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from threading import enumerate as threads
from typing import Generic, TypeVar

DISPATCHER, _WORKER = "bfr-dispatcher", "bfr-worker"  # names of such threads

Result = TypeVar("Result")


class DaemonThreads(Generic[Result]):
    """Like a ThreadPoolExecutor, except that the interpreter does not wait for its threads when it exits."""

    def __init__(self, count: int) -> None:
        self._calls = SimpleQueue[Callable[[], None] | None]()
        self._threads = [Thread(target=self._work, name=_WORKER, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        future = Future[Result]()
        self._calls.put(partial(_settle, future, call))
        return future

    def close(self, patience: float) -> None:
        """Ends the threads once they are idle; waits for that at most `patience` seconds."""
        deadline = time.monotonic() + patience
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while call := self._calls.get():
            call()


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised again where the result is taken
        future.set_exception(error)


def end_if_busy(code: int) -> None:
    """Exits at once if such a thread is still at work.

    A normal exit would stop the thread inside the native code of PyTorch or Ray, which aborts the process (SIGABRT)
    instead of giving `code`.
    """
    if any(thread.name in (DISPATCHER, _WORKER) for thread in threads()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
