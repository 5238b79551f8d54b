"""The random numbers of a whole batch, for tests of losses."""

from __future__ import annotations

from bfr_models.training.draws import Draws


def draws_of(count: int, step: int = 0) -> Draws:
    """Of all its faces."""
    return Draws(0, step, range(count), count)
