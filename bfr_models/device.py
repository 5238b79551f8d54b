"""Which device a network runs on, and how a process gets ready for one that is the CPU."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -3, -1, -8
_LARGEST_KEPT = 32 * 2**20
"""Bytes: more than the largest tensor of a small network and eight faces, less than a large photo. The most that every
glibc takes."""
_FREE_AT_END = 512 * 2**20
_CPUINFO = Path("/proc/cpuinfo")  # of Linux
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""Of CPUs that were measured to be faster in bfloat16: Intel's AMX by 1.4 to 1.55 times, AMD's Zen 4 by 1.3 to 1.8."""


def local_device() -> str:
    """Where this process itself would run a method."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def kind_of(device: str) -> str:
    """ "cuda" of "cuda:0"."""
    return device.partition(":")[0]


@cache
def multiplies_bf16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 by itself, as Linux tells it: by Intel's AMX, or by AVX-512's own
    instructions for it."""
    with suppress(OSError):
        return not BF16_FLAGS.isdisjoint(_CPUINFO.read_text().split())
    return False


def precision_on(device: str, precision: str) -> str:
    """What a network's `precision` is on a device of this machine: "auto" is bf16 on a CPU that multiplies that by
    itself, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if kind_of(device) == "cpu" and multiplies_bf16() else "fp32"


def trains_in_bf16(device: str, precision: str) -> bool:
    """Whether a training's `precision` is bf16 on a device of this machine: "auto" is, but for a CPU that does not
    multiply that by itself and takes some eight times as long for it as for float32."""
    if precision == "auto":
        return kind_of(device) != "cpu" or multiplies_bf16()
    return precision == "bf16"


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
