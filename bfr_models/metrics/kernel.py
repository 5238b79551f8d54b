"""Kernel distance of features (KID, arXiv 1801.01401): the unbiased squared MMD with (x.y / d + 1)^3.

Unbiased at any number of faces, whereas a Fréchet distance of few faces is too large. It needs the features
themselves; sums over them are not enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.metrics.frechet import Features, FeatureSource

_BLOCK = 1024  # rows of a kernel matrix at a time


@dataclass(frozen=True)
class KernelDistance:
    """Mean of the squared MMD over `subsets` pairs of `subset_size` faces, and its standard deviation over them."""

    name: str
    mean: float
    std: float
    subsets: int
    subset_size: int
    n: tuple[int, int]


def kernel_distance(
    a: Features, b: Features, source: FeatureSource, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """The distance between (n, d) and (m, d), not times 1000; `kid` for FID's network, else `kd_<network>`.

    Subsets are drawn without replacement by row number: the same rows in the same order give the same value on every
    machine and with every version of numpy. They are smaller where there are fewer faces.
    """
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise UsageError(f"expected features of at least 2 faces, found {len(a)} and {len(b)}")
    bits = np.random.PCG64(seed)  # its raw numbers never change; what `Generator` makes of them may
    values = [squared_mmd(_draw(a, size, bits), _draw(b, size, bits)) for _ in range(subsets)]
    name = "kid" if source.metric == "fid" else f"kd_{source.network}"
    return KernelDistance(name, float(np.mean(values)), float(np.std(values)), subsets, size, (len(a), len(b)))


def squared_mmd(a: Features, b: Features) -> float:
    """Unbiased squared MMD of (n, d) and (m, d) in float64; it may be below 0. Memory grows with n, not with n m."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UsageError(f"expected features (n, d) and (m, d), found {a.shape} and {b.shape}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    return _mean_without_diagonal(x) + _mean_without_diagonal(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _mean_without_diagonal(x: NDArray[np.float64]) -> float:
    diagonal = float(((np.einsum("nd,nd->n", x, x) / x.shape[1] + 1) ** 3).sum())
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    blocks = (x[start : start + _BLOCK] @ y.T for start in range(0, len(x), _BLOCK))
    return sum(float(((block / x.shape[1] + 1) ** 3).sum()) for block in blocks)


def _draw(features: Features, size: int, bits: np.random.PCG64) -> Features:
    """`size` different rows, in their order: those with the smallest random numbers."""
    chosen = np.argpartition(bits.random_raw(len(features)), size - 1)[:size]
    return features[np.sort(chosen)]
