"""Identity: how close two faces' vectors are.

The angle never comes from arccos: on float32 dot products that is NaN for many equal vectors, and with clipping it
loses every small angle (arccos is flat to rounding below 1e-8 rad even in float64).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32] | NDArray[np.float64]
"""(n, d), one face per row."""


def cosine(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """(n,) cosine of each row of `a` with its row of `b`: 1 for the same direction."""
    dots: NDArray[np.float64] = np.sum(_unit(a, b) * _unit(b, a), axis=1)
    return dots.clip(-1.0, 1.0)


def angle_degrees(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """(n,) angle of each row of `a` with its row of `b` in [0, 180]: 2 atan2(|a - b|, |a + b|)."""
    u, v = _unit(a, b), _unit(b, a)
    half: NDArray[np.float64] = np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))
    return np.degrees(2 * half)


def _unit(vectors: Vectors, other: Vectors) -> NDArray[np.float64]:
    """In float64 and of length 1: float32 unit vectors are off by 1e-7, which a small angle shows."""
    if vectors.ndim != 2 or vectors.shape != other.shape:
        raise ValueError(f"expected two (n, d) arrays of one shape, got {vectors.shape} and {other.shape}")
    unit: NDArray[np.float64] = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit
