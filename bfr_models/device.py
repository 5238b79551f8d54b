"""Which device a network runs on, and how a process gets ready for one that is the CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_KEPT = {
    -1: 512 * 2**20,  # M_TRIM_THRESHOLD: bytes that may be free at the end of the heap
    -3: 64 * 2**20,  # M_MMAP_THRESHOLD: tensors up to this size are on the heap
    -8: 1,  # M_ARENA_MAX: one heap for all threads, because only the first is kept
}


def local_device() -> str:
    """Where this process itself would run a method."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def keep_freed_memory() -> None:
    """Has this process keep the memory that a network's call frees, half a gigabyte at most, for the next call.

    By default, glibc hands large tensors back to the system, which clears every page before it gives it out again: a
    seventh of a small network's time. Threads that have allocated before keep the heaps that they have. Without glibc
    nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _KEPT.items():
            mallopt(parameter, value)
