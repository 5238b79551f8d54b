"""Threads for work that cannot be interrupted: the interpreter does not wait for them when it exits."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

WORKER = "bfr-worker"  # the name of such threads, by default

Result = TypeVar("Result")


class DaemonThreads(Generic[Result]):
    """Like a ThreadPoolExecutor, except for the end: see above. Each thread calls `set_up` when it starts."""

    def __init__(self, count: int, name: str = WORKER, set_up: Callable[[], None] = lambda: None) -> None:
        self._calls = SimpleQueue[Callable[[], None] | None]()
        self._lock, self._closed = Lock(), False
        self._threads = [Thread(target=self._work, args=(set_up,), name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """The call's result, once a thread has made it; cancelled if the threads have been told to end."""
        future = Future[Result]()
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                self._calls.put(partial(_settle, future, call))
        return future

    def close(self, patience: float) -> None:
        """Ends the threads once they are idle; waits for that at most `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, set_up: Callable[[], None]) -> None:
        set_up()
        while call := self._calls.get():
            call()


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised again where the result is taken
        future.set_exception(error)
