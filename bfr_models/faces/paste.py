"""Puts restored faces back into their photo: inside each face's own area only, with a soft edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, hypot
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bfr_models.faces.align import at_scale, transform_points
from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image, resize

MARGIN = 0.02  # share of a crop's side whose outermost pixels are never used,
FEATHER = 0.13  # and the share next to it over which the face fades in
BAND_PIXELS = 100_000  # of the photo held in float at a time: few enough for a core's own cache
FINE = 2  # samples of the face per photo pixel in each direction, which a Lanczos filter reduces to one
REACH = 3  # of that filter, in photo pixels
COARSE = 2 / 3
"""Pixels of the face for one of the photo up to which it is sampled once a pixel, without a filter: what cubic
interpolation leaves beyond the photo's resolution is not seen, half a grey level (RMS) in a sharp face."""

FloatImage = NDArray[np.float32]


def paste(photo: Uint8Image, faces: Sequence[tuple[Uint8Image, Matrix, float]]) -> Uint8Image:
    """`photo` with square `faces` in it, each with the matrix photo -> crop that it was cut by, and the face's weight
    in (0, 1]: the rest is the photo's.

    Pixels outside the faces are those of the photo. Faces are laid on top of each other, the first uppermost. Without
    faces it is the photo itself, else a copy.
    """
    if not faces:
        return photo
    canvas = photo.copy()
    for face, matrix, weight in reversed(faces):
        scaled, from_photo = _near_photo_scale(face, matrix)
        for rows, columns in _bands(canvas.shape[:2], from_photo, len(scaled)):
            area, origin = canvas[rows, columns], (rows.start, columns.start)
            canvas[rows, columns] = _blend(area, origin, scaled, from_photo, weight)
    return canvas


def _near_photo_scale(face: Uint8Image, matrix: Matrix) -> tuple[FloatImage, Matrix]:
    """The face at most `FINE` times as fine as the photo, antialiased, and the matrix photo -> that face."""
    side = len(face)
    target = min(side, max(1, round(FINE * side / hypot(matrix[0, 0], matrix[1, 0]))))
    planes = torch.from_numpy(np.ascontiguousarray(face)).float().movedim(-1, 0)[None]
    scaled = resize(planes, target)[0].movedim(0, -1).contiguous().numpy()
    return scaled, at_scale(matrix, target / side)


def _bands(shape: tuple[int, ...], from_photo: Matrix, side: int) -> Iterator[tuple[slice, slice]]:
    """The part of a photo that a face covers, in bands of rows that bound the memory."""
    outline = np.array([(-0.5, -0.5), (side - 0.5, -0.5), (side - 0.5, side - 0.5), (-0.5, side - 0.5)])
    corners = transform_points(outline, np.asarray(cv2.invertAffineTransform(from_photo), dtype=np.float64))
    rows, columns = ((0, length - 1) for length in shape[:2])
    top, bottom = _pixels_within(corners[:, 1], rows)
    left, right = _pixels_within(corners[:, 0], columns)
    if left > right:
        return
    height = max(1, BAND_PIXELS // (right - left + 1))
    for first in range(top, bottom + 1, height):
        last = min(first + height - 1, bottom)
        # A pixel wider on all sides: where the photo cuts a face off, rounding must not cost its outermost pixels.
        outer = [(left - 1, first - 1), (right + 1, first - 1), (right + 1, last + 1), (left - 1, last + 1)]
        _, covered = cv2.intersectConvexConvex(corners.astype(np.float32), np.array(outer, np.float32))
        if covered is None:
            continue
        start, end = _pixels_within(covered[:, 0, 0], columns)  # a face that is turned is narrower in its first rows
        if start <= end:
            yield slice(first, last + 1), slice(start, end + 1)


def _pixels_within(places: NDArray[Any], limits: tuple[int, int]) -> tuple[int, int]:
    """The first and the last pixel between the outermost of some places along an axis."""
    return max(limits[0], ceil(places.min())), min(limits[1], floor(places.max()))


def _blend(
    area: Uint8Image, origin: tuple[int, int], face: FloatImage, from_photo: Matrix, weight: float
) -> Uint8Image:
    """An area of the photo, whose first pixel is (row, column) `origin`, under the face."""
    height, width = area.shape[:2]
    matrix = _shifted(from_photo, origin[1], origin[0])
    mask = _mask(height, width, matrix, len(face))
    mask *= weight
    blended = _resampled(face, matrix, height, width) - area
    blended *= cv2.merge((mask, mask, mask))
    blended += area
    return np.rint(blended.clip(0, 255, out=blended), out=blended).astype(np.uint8)


def _resampled(face: FloatImage, matrix: Matrix, height: int, width: int) -> FloatImage:
    """The face on the pixels of an area, where `matrix` goes from the area to the face.

    One that is not `COARSE` is sampled on a finer grid in line with the photo's, then filtered: what is beyond the
    photo's resolution must not alias, and what is within it must not blur. The grid is larger than the area by the
    filter's reach.
    """
    if hypot(matrix[0, 0], matrix[1, 0]) <= COARSE:
        return _sampled(face, matrix, height, width)
    fine = _shifted(matrix, -REACH, -REACH)
    fine = _shifted(fine, (1 / FINE - 1) / 2, (1 / FINE - 1) / 2)
    fine[:, :2] /= FINE
    samples = _sampled(face, fine, FINE * (height + 2 * REACH), FINE * (width + 2 * REACH))
    taps = _lanczos()
    middle = len(taps) // 2 - 1
    down = cv2.filter2D(samples, cv2.CV_32F, taps[:, None], anchor=(0, middle))[::FINE][REACH:-REACH]
    across = cv2.filter2D(down, cv2.CV_32F, taps[None], anchor=(middle, 0))[:, ::FINE][:, REACH:-REACH]
    return np.asarray(across, dtype=np.float32)


def _sampled(face: FloatImage, matrix: Matrix, height: int, width: int) -> FloatImage:
    """Cubic, on a grid, where `matrix` goes from the grid to the face."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP  # the matrix is the one from destination to source
    sampled = cv2.warpAffine(face, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, dtype=np.float32)


def _lanczos() -> NDArray[np.float32]:
    """The filter's taps, around the middle of the `FINE` samples of a pixel."""
    places = (np.arange(2 * REACH * FINE) + 0.5) / FINE - REACH
    taps = np.sinc(places) * np.sinc(places / REACH)
    return (taps / taps.sum()).astype(np.float32)


def _shifted(matrix: Matrix, x: float, y: float) -> Matrix:
    """The matrix for an area that starts at (x, y)."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (x, y)
    return shifted


def _mask(height: int, width: int, matrix: Matrix, side: int) -> FloatImage:
    """1 inside the crop, 0 from its margin on, and smooth between: a product of two ramps, so round at corners."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    mask = np.ones((height, width), dtype=np.float32)
    for a, b, c in matrix.astype(np.float32):
        place = (a * x + b * y + c + 0.5) / side  # across the crop, from 0 to 1
        ramp = ((np.minimum(place, 1 - place) - MARGIN) / FEATHER).clip(0, 1)
        mask *= ramp * ramp * (3 - 2 * ramp)
    return mask
