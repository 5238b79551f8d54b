"""How many faces go to the networks in one call: as asked, or found out; fewer where the memory is too small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch

from bfr_models.errors import RowError

START = {"cpu": 2, "cuda": 4}
MOST = {"cpu": 16, "cuda": 128}
WORTH = 1.1
"""By how much a batch twice as large must be faster, in faces per second, to be worth its memory."""


class BatchSize:
    """`now` is the number to take next. One that was asked for stays, unless it does not fit.

    `auto` doubles from a small one as long as that is faster, and goes back to the one before where it is not. The
    first call of each size is not counted: it allocates and chooses algorithms.
    """

    def __init__(self, asked: int | Literal["auto"], device: str) -> None:
        kind = device.partition(":")[0]
        self.now = START[kind] if asked == "auto" else asked
        self._most = MOST[kind] if asked == "auto" else asked
        self._fastest = 0.0  # faces per second
        self._is_warm = False

    def note(self, faces: int, seconds: float) -> None:
        """A call of so many faces took so long."""
        if faces != self.now or self.now >= self._most:
            return
        if not self._is_warm:
            self._is_warm = True
            return
        if faces / seconds < WORTH * self._fastest:
            self.now = self._most = self.now // 2
            return
        self._fastest = faces / seconds
        self.now = min(2 * self.now, self._most)
        self._is_warm = False

    def too_large(self, faces: int) -> None:
        """A call of so many faces ran out of memory."""
        self._most = max(1, faces // 2)
        self.now = min(self.now, self._most)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed for want of memory, on an accelerator or not."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


Item = TypeVar("Item")


Result = TypeVar("Result")


def call_or_bisect(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], code: str
) -> list[Result | RowError]:
    """`work` on all items in one call; if that fails, in halves, down to the item that is to blame."""
    try:
        return [*work(items)]
    except Exception as error:  # whatever a network may raise, out of memory included
        failure = RowError(code, f"{type(error).__name__}: {error}"[:500])
    # Outside of the handler: the exception holds on to the tensors of the call that ran out of memory.
    if len(items) == 1:
        return [failure]
    half = len(items) // 2
    return call_or_bisect(work, items[:half], code) + call_or_bisect(work, items[half:], code)
