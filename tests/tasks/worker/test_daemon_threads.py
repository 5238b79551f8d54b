"""Threads that no exit waits for: what becomes of calls, and of those that come too late."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait
from contextlib import suppress

import pytest

from tasks.worker.daemon_threads import WORKER, DaemonThreads


def test_calls_are_made_by_threads_that_are_set_up_and_errors_come_back() -> None:
    here = threading.local()
    threads = DaemonThreads[str](1, lambda: setattr(here, "name", "set up"))

    def fail() -> str:
        raise ValueError("not this one")

    assert threads.submit(lambda: f"{here.name} {threading.current_thread().name}").result(30) == f"set up {WORKER}"
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
    assert wait([late], 0).done == {late}


def test_a_failed_call_keeps_nothing_of_what_it_was_at() -> None:
    """Without the help of the garbage collector: where memory ran out, the next call needs it."""

    class Tensors:
        pass

    threads, alive = DaemonThreads[None](1), list[weakref.ref[Tensors]]()

    def fail() -> None:
        tensors = Tensors()
        alive.append(weakref.ref(tensors))
        raise MemoryError

    gc.disable()
    try:
        for _ in range(3):
            with suppress(MemoryError):
                threads.submit(fail).result(30)
        threads.submit(lambda: None).result(30)
        assert [one() for one in alive] == [None] * 3
    finally:
        gc.enable()
        threads.close(30)


def test_threads_end_when_nobody_can_ask_them_any_more() -> None:
    threads = DaemonThreads[int](2)
    own = list(threads._threads)
    assert threads.submit(lambda: 1).result(30) == 1
    del threads
    for thread in own:
        thread.join(30)
    assert not any(thread.is_alive() for thread in own)
