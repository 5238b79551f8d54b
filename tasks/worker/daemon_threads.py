"""Threads for work that cannot be interrupted: the interpreter does not wait for them when it exits."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

WORKER = "bfr-worker"  # the name of such threads

Result = TypeVar("Result")


class DaemonThreads(Generic[Result]):
    """Like a ThreadPoolExecutor, except for the end: see above. Each thread calls `set_up` when it starts."""

    def __init__(self, count: int, set_up: Callable[[], None] = lambda: None) -> None:
        self._calls = SimpleQueue[Callable[[], None] | None]()
        self._lock, self._closed = Lock(), False
        arguments = (self._calls, set_up)
        self._threads = [Thread(target=_work, args=arguments, name=WORKER, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, _end, self._calls, count)  # nobody can ask them any more

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """The call's result, once a thread has made it; cancelled if the threads have been told to end."""
        future = Future[Result]()
        with self._lock:
            if self._closed:
                future.cancel()
                future.set_running_or_notify_cancel()  # `concurrent.futures.wait` asks for it
            else:
                self._calls.put(partial(_settle, future, call))
        return future

    def close(self, patience: float) -> None:
        """Ends the threads once they are idle; waits for that at most `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._lock:
            self._closed = True
            _end(self._calls, len(self._threads))
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _work(calls: SimpleQueue[Callable[[], None] | None], set_up: Callable[[], None]) -> None:
    set_up()
    while call := calls.get():
        call()
        del call  # what it was given and has made is not kept until the next


def _end(calls: SimpleQueue[Callable[[], None] | None], threads: int) -> None:
    for _ in range(threads):
        calls.put(None)


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised again where the result is taken
        future.set_exception(error)
    finally:
        del future  # in the error's traceback it would keep itself, and the tensors of the failed call
