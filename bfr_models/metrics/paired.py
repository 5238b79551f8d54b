"""How certain a mean is, and how often one method beats another on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_CHUNK = 10_000_000  # draws in memory at a time


def bootstrap_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values` (Efron 1979), from `RESAMPLES` draws of one seed."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"expected at least one value, got shape {sample.shape}")
    rng, at_once = np.random.default_rng(seed), max(1, _CHUNK // len(sample))
    means: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, at_once):
        drawn = rng.integers(len(sample), size=(min(at_once, RESAMPLES - start), len(sample)))
        means.append(sample[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_wins(ours: Sequence[float], theirs: Sequence[float], *, lower_is_better: bool = False) -> float:
    """Share of the rows, 0 to 1, where `ours` is better than `theirs`; a tie counts one half."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected two values per row, got {a.shape} and {b.shape}")
    gain = b - a if lower_is_better else a - b
    return float(np.mean((gain > 0) + 0.5 * (gain == 0)))
