"""Which device a network runs on, and how a process gets ready for one that is the CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -3, -1, -8
_LARGEST_KEPT = 32 * 2**20
"""Bytes: more than a small network's largest tensor, less than a large photo. The most that every glibc takes."""
_FREE_AT_END = 512 * 2**20


def local_device() -> str:
    """Where this process itself would run a method."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def kind_of(device: str) -> str:
    """ "cuda" of "cuda:0"."""
    return device.partition(":")[0]


@cache
def keep_freed_memory() -> None:
    """Has this process keep the memory that a network's call frees for the next: what it holds stays near its peak.

    By default, glibc hands large tensors back to the system, which clears every page before it gives it out again: a
    seventh of a small network's time. Threads that have allocated before keep the heaps that they have; others share
    the first one, because no other is kept. For restoring alone: a method calls it when it loads. Without glibc nothing
    changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # The first to be set ends glibc's own adapting: the others only help if it was taken.
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) == 1:
        mallopt(_M_TRIM_THRESHOLD, _FREE_AT_END)
        mallopt(_M_ARENA_MAX, 1)
