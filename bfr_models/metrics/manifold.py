"""Improved precision and recall (arXiv 1904.06991): how much of one set of faces lies among the other.

A face lies among a set when it is within the k-th neighbour's distance of at least one of its faces. Precision is the
share of restored faces among the reference ones, recall the share of reference faces among the restored ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.metrics.frechet import Features

_BLOCK = 256  # rows of a distance matrix at a time


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1], with the number of neighbours and of faces (restored, reference) that they hold for."""

    precision: float
    recall: float
    k: int
    n: tuple[int, int]


def precision_recall(restored: Features, reference: Features, *, k: int = 3) -> PrecisionRecall:
    """From (n, d) and (m, d) features; memory grows with n + m, time with (n + m)^2. The paper's k is 3.

    Both shares depend on n and m: compare methods only at equal numbers of faces.
    """
    for features in (restored, reference):
        if features.ndim != 2 or features.shape[1] != reference.shape[1] or len(features) <= k:
            raise UsageError(f"expected features (n, d) of one length of more than {k} faces, found {features.shape}")
    return PrecisionRecall(
        _share_among(restored, reference, k), _share_among(reference, restored, k), k, (len(restored), len(reference))
    )


def _share_among(candidates: Features, population: Features, k: int) -> float:
    """The share of candidates that lie among the population."""
    radii = np.concatenate(
        [np.partition(block, k, axis=1)[:, k] for block in _squared_distances(population, population)]
    )
    return float(np.concatenate([(b <= radii).any(axis=1) for b in _squared_distances(candidates, population)]).mean())


def _squared_distances(a: Features, b: Features) -> Iterator[NDArray[np.float64]]:
    """(rows of a, m) float64, block by block."""
    y = b.astype(np.float64)
    lengths = np.einsum("nd,nd->n", y, y)
    for start in range(0, len(a), _BLOCK):
        x = a[start : start + _BLOCK].astype(np.float64)
        squares = np.einsum("nd,nd->n", x, x)[:, None] - 2 * (x @ y.T) + lengths
        yield squares.clip(min=0)
