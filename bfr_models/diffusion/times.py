"""The times of a chain in continuous time. Imports no torch, because options are checked with these."""

from __future__ import annotations

import math

FIRST_TIME = 1e-3
"""The smallest time at which a network is trained and called."""


def times_from(start: float, steps: int) -> list[float]:
    """`steps` times from `start` down to `FIRST_TIME`, and 0: evenly spaced in sqrt(t), and so finer where detail
    is made."""
    if steps == 1:
        return [start, 0.0]
    top, bottom = math.sqrt(start), math.sqrt(FIRST_TIME)
    return [start] + [(top + (bottom - top) * i / (steps - 1)) ** 2 for i in range(1, steps)] + [0.0]
