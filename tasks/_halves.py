"""Calls on many items that may fail for one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bfr_models.errors import RowError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_halves(
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
    return in_halves(work, items[:half], code) + in_halves(work, items[half:], code)
