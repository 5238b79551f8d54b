"""One process of this machine at a time, whatever happens to the others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def node_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the lock at `path`, after waiting for whoever holds it; `on_wait` is called before a wait.

    The kernel gives it up when its owner dies, so no lock is ever stale. The file is gone afterwards.
    """
    descriptor = _acquire(path, on_wait)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # before the lock is given up: whoever waits on this file then sees that it is not `path`
        os.close(descriptor)


def _acquire(path: Path, on_wait: Callable[[], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, on_wait)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner has removed it while this process waited


def _lock(descriptor: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
