"""The random numbers of a batch, for tests of losses."""

from __future__ import annotations

from bfr_models.training.draws import Draws


def draws_of(count: int, step: int = 0, part: range | None = None) -> Draws:
    """Of all its faces, or of some."""
    return Draws(0, step, range(count) if part is None else part, count)
