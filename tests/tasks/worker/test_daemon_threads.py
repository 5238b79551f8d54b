"""Threads that no exit waits for: what becomes of calls, and of those that come too late."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from tasks.worker.daemon_threads import DaemonThreads


def test_calls_are_made_by_threads_that_are_set_up_and_errors_come_back() -> None:
    here = threading.local()
    threads = DaemonThreads[str](1, "own", lambda: setattr(here, "name", "set up"))

    def fail() -> str:
        raise ValueError("not this one")

    assert threads.submit(lambda: f"{here.name} {threading.current_thread().name}").result(30) == "set up own"
    with pytest.raises(ValueError, match="not this one"):
        threads.submit(fail).result(30)
    threads.close(30)


def test_what_was_asked_for_before_the_end_is_done_and_what_comes_later_is_cancelled() -> None:
    threads, go_on = DaemonThreads[int](1), threading.Event()
    first, second = threads.submit(lambda: go_on.wait(30)), threads.submit(lambda: 2)
    threads.close(0)
    late = threads.submit(lambda: 3)
    go_on.set()
    assert (first.result(30), second.result(30)) == (True, 2)
    with pytest.raises(CancelledError):
        late.result(30)
