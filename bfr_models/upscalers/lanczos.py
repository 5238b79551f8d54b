"""Enlarges images by a whole factor with a Lanczos filter, some rows at a time: no second copy of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Level = TypeVar("Level", np.uint8, np.uint16)

REACH = 4  # of OpenCV's filter, in pixels of the input
BAND_ROWS = 128  # of the input


def enlarge(image: NDArray[Level], factor: int) -> NDArray[Level]:
    """(H, W) or (H, W, channels) -> `factor` times the height and the width; the image itself for 1."""
    if factor == 1:
        return image
    height, width, *channels = image.shape
    enlarged = np.empty((factor * height, factor * width, *channels), image.dtype)
    for rows in bands(height, factor):
        enlarged[rows] = enlarge_rows(image, factor, rows)
    return enlarged


def bands(height: int, factor: int) -> Iterator[slice]:
    """The rows of an enlarged image whose input has `height` rows, some at a time."""
    for first in range(0, height, BAND_ROWS):
        yield slice(factor * first, factor * min(first + BAND_ROWS, height))


def enlarge_rows(image: NDArray[Level], factor: int, rows: slice) -> NDArray[Level]:
    """These rows of the enlarged image, from the part of the input that they depend on. They must start and stop at
    multiples of `factor`."""
    first, last = rows.start // factor, rows.stop // factor
    above, below = max(0, first - REACH), min(len(image), last + REACH)
    part = np.ascontiguousarray(image[above:below])
    size = (factor * image.shape[1], factor * (below - above))
    resized = cv2.resize(part, size, interpolation=cv2.INTER_LANCZOS4)
    skipped = factor * (first - above)
    return np.asarray(resized[skipped : skipped + factor * (last - first)], dtype=image.dtype)
