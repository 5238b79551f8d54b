"""Whether a person, or what runs this process, wants it to stop. An interruption is no failure of what it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HEED_SECONDS = 1.0  # in which a signal to a whole group reaches this process after it has ended another one

_heard = threading.Event()


@contextmanager
def interruptible(stop_seconds: int = 0) -> Iterator[None]:
    """SIGINT and SIGTERM interrupt the block, once: a second one during the shutdown of Ray and Prefect would leave
    their processes behind. After the block they are heard, but interrupt nothing: what is left is that shutdown.

    The kernel ends this process `stop_seconds` after the signal (0: never), even in native code.
    """
    at_work = True

    def interrupt(*_: object) -> None:
        if _heard.is_set():
            return
        _heard.set()
        signal.alarm(stop_seconds)
        if at_work:
            raise KeyboardInterrupt

    _heard.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        at_work = False


def is_interrupted() -> bool:
    """Whether a signal has been heard."""
    return _heard.is_set()


def heed_interruption() -> None:
    """KeyboardInterrupt if a signal has come, or comes right now: then it explains a failure better than itself."""
    if _heard.wait(HEED_SECONDS):
        raise KeyboardInterrupt
