"""Batch sizes: as requested or found by trial, smaller where memory runs out; and calls that fail for some items only.

Faces do not influence each other within a batch: the size is a matter of speed and memory, not of the output, except
for last digits, which in bf16 may be a grey level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch

from bfr_models.device import kind_of
from bfr_models.errors import RejectionCode, RowError

START = {"cpu": 2, "cuda": 4}  # small: it costs one slow batch, where too large a first guess costs a failed one
MOST = {"cpu": 16, "cuda": 128}
WORTH = 1.1
"""Gain in faces per second that doubling the batch must bring to be worth its memory. Less may be noise."""


class BatchSize:
    """`now` is the size of the next batch, `most` the largest that it may grow to. A requested size stays, unless it
    does not fit.

    `auto` starts small and doubles as long as that is faster, then goes back one step and stays. The first call of each
    size is not timed: in it, the device allocates memory and chooses algorithms.
    """

    def __init__(self, asked: int | Literal["auto"], device: str) -> None:
        kind = kind_of(device)
        self.now = START[kind] if asked == "auto" else asked
        self.most = MOST[kind] if asked == "auto" else asked
        self._fastest = 0.0  # faces per second
        self._is_warm = False

    def note(self, faces: int, seconds: float) -> None:
        """Records how long a call with this many faces took."""
        if faces != self.now or self.now >= self.most:  # an incomplete batch says nothing about the full one
            return
        if not self._is_warm:
            self._is_warm = True
            return
        if faces / seconds < WORTH * self._fastest:
            self.now = self.most = self.now // 2
            return
        self._fastest = faces / seconds
        self.now = min(2 * self.now, self.most)
        self._is_warm = False

    def too_large(self, faces: int) -> None:
        """Records that a call with this many faces ran out of memory."""
        self.most = min(self.most, max(1, faces // 2))
        self.now = min(self.now, self.most)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed because memory ran out, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


Item = TypeVar("Item")


Result = TypeVar("Result")


def call_or_bisect(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], code: RejectionCode
) -> list[Result | RowError]:
    """Calls `work` on all items; if that fails, on each half, down to the items at fault. These get a RowError `code`.

    So one bad face costs itself and a few calls, not its batch, whatever the network raises.
    """
    try:
        return [*work(items)]
    except Exception as error:  # networks raise anything, running out of memory included
        failure = RowError(code, f"{type(error).__name__}: {error}"[:500])
    # Outside the handler: inside it, the traceback would keep the tensors of the failed call alive, and halving the
    # batch would free no memory.
    if len(items) == 1:
        return [failure]
    half = len(items) // 2
    return call_or_bisect(work, items[:half], code) + call_or_bisect(work, items[half:], code)
