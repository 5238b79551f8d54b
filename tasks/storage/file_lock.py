"""A lock file that lets one process of this machine in at a time, even if others die while they hold it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def node_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the lock at `path`, waiting for its current holder if there is one; calls `on_wait` before it waits.

    The kernel releases the lock when its holder dies, so it is never stale. The file is removed afterwards.
    """
    descriptor = _acquire(path, on_wait)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # while still locked: a process waiting on this file then sees that `path` is another one
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
        os.close(descriptor)  # its last holder removed the file while this process waited: lock the new one


def _lock(descriptor: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path` (the same inode)."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
