"""From a face in a photo to the square crop that the networks are trained on."""

from __future__ import annotations

from math import ceil, hypot

import cv2
import numpy as np

from bfr_models.errors import RowError
from bfr_models.faces.template import at_size
from bfr_models.faces.types import Matrix, Points
from bfr_models.pixels import Uint8Image

MIN_SPREAD = 2.0  # px between the outermost landmarks; with less there is no face, and its scale would be noise
MAX_WARP_SIDE = 8192  # px; bounds the memory of one very large face (192 MiB)


def align(image: Uint8Image, landmarks: Points, template: Points, size: int) -> tuple[Uint8Image, Matrix]:
    """The face at `landmarks`, upright in a (size, size, 3) crop, and the matrix photo -> crop.

    `template` says where the landmarks belong in a 512 px crop. Beyond the photo's border the crop
    continues as a mirror image. Raises RowError("bad_landmarks") when they do not span a face.
    """
    matrix = similarity(landmarks, at_size(template, size))
    return warp(image, matrix, size), matrix


def similarity(source: Points, target: Points) -> Matrix:
    """Rotation, scale and shift that bring `source` closest to `target`; robust (least median of squares)."""
    if source.shape != target.shape:
        raise ValueError(f"expected {target.shape} landmarks like the template, got {source.shape}")
    if not np.isfinite(source).all() or np.ptp(source, axis=0).max() < MIN_SPREAD:
        raise RowError("bad_landmarks", f"expected points that span a face, got {source.tolist()}")
    matrix, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.LMEDS)
    if matrix is None or not np.isfinite(matrix).all():
        raise RowError("bad_landmarks", f"no similarity fits {source.tolist()}")
    return np.asarray(matrix, dtype=np.float64)


def warp(image: Uint8Image, matrix: Matrix, size: int) -> Uint8Image:
    """The (size, size, 3) crop of `image` under a similarity photo -> crop, antialiased, mirrored at borders.

    Bilinear sampling alone aliases when it shrinks, so a face that is larger than its crop is first
    sampled about as finely as the photo, on a grid of `factor`^2 points per pixel, then averaged.
    """
    shrink = 1 / hypot(matrix[0, 0], matrix[1, 0])
    factor = max(1, min(ceil(shrink - 0.1), MAX_WARP_SIDE // size))  # a shrink by 1.1 does not alias yet
    crop = cv2.warpAffine(
        np.ascontiguousarray(image),
        at_scale(matrix, factor),
        (size * factor, size * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if factor > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, dtype=np.uint8)


def at_scale(matrix: Matrix, ratio: float) -> Matrix:
    """The matrix photo -> crop for a crop with `ratio` times as many pixels a side, centres on centres."""
    found = matrix * ratio
    found[:, 2] += (ratio - 1) / 2
    return found


def scaled(image: Uint8Image, scale: float) -> Uint8Image:
    """A photo resized for a detector; at least 1 px a side."""
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation), dtype=np.uint8)


def transform_points(points: Points, matrix: Matrix) -> Points:
    """(n, 2) points through an affine matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]
