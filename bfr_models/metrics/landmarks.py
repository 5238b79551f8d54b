"""Landmark distance (LMD): how far the landmarks of two images of one face lie apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bfr_models.faces.types import Points

LANDMARK_SETS = {"retinaface_5": 5, "dlib_5": 5, "wflw_98": 98}
"""By name, the number of points. Papers report `wflw_98` at 512 px; values of two sets do not compare."""


def landmark_distance(a: Points, b: Points, landmarks: str) -> tuple[str, NDArray[np.float64]]:
    """Its name, `lmd_<landmarks>`, and (B,) mean distances of (B, n, 2) points, in the images' pixels.

    ValueError unless both have as many points as the set.
    """
    wanted = LANDMARK_SETS[landmarks]
    if a.shape != b.shape or a.ndim != 3 or a.shape[1:] != (wanted, 2):
        raise ValueError(f"expected two (B, {wanted}, 2) arrays of {landmarks}, got {a.shape} and {b.shape}")
    return f"lmd_{landmarks}", np.linalg.norm(a - b, axis=2).mean(axis=1)
