"""What the judge sees of a face: statistics of its detail, band by band, and of how two pictures of it differ.

The bands are those of a Laplacian pyramid at the photo's own scale: there are grain, noise and the lattice of a JPEG,
which a resize would hide. Each statistic is of the whole crop and of its middle, where the face is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image

Values = NDArray[np.float32]

SIDES = (32, 256)
"""A smaller face is enlarged to the first, a larger one shrunk to the second: what is not sharp there is not sharp."""
LEVELS = 4
OF_ONE, OF_TWO = LEVELS * 2 * 7 + 4, LEVELS * 2 * 4 + 3
"""Numbers of statistics."""
_QUANTILES = (0.2, 0.5, 0.9)
_TAPS = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16
_TO_LUMA_AND_COLOUR = np.array([(0.299, 0.587, 0.114), (0.701, -0.587, -0.114), (-0.299, -0.587, 0.886)], np.float32)
_TINY = 1e-4  # of values in [0, 1]
_PERIOD = 8  # px of a JPEG's blocks


@dataclass(frozen=True, eq=False)
class Bands:
    """A picture in bands, from fine to coarse: each (H, W, 3), luma and two colour differences of values in [0, 1]."""

    details: tuple[Values, ...]
    picture: Values  # (n, n, 3), the same channels


def bands(image: Uint8Image, side: int) -> Bands:
    """A square picture as it looks in a photo where it is `side` px wide, in bands."""
    seen = _resized(_resized(image, min(side, SIDES[1])), min(max(side, SIDES[0]), SIDES[1]))
    picture: Values = np.asarray(cv2.transform(seen.astype(np.float32) / 255, _TO_LUMA_AND_COLOUR), np.float32)
    x, details = picture, []
    for _ in range(LEVELS):
        smooth = np.asarray(cv2.sepFilter2D(x, cv2.CV_32F, _TAPS, _TAPS, borderType=cv2.BORDER_REFLECT_101), np.float32)
        details.append(x - smooth)
        x = smooth[::2, ::2]
    return Bands(tuple(details), picture)


def of_one(of: Bands) -> Values:
    """(OF_ONE,) the statistics of one picture."""
    return np.concatenate(list(_of_one(of))).astype(np.float32)


def of_two(face: Bands, candidate: Bands) -> Values:
    """(OF_TWO,) how two pictures of a face differ, band by band."""
    found: list[Values] = []
    for one, other in zip(face.details, candidate.details, strict=True):
        for a, b in zip(_regions(one), _regions(other), strict=True):
            together = np.vdot(a[..., 0], b[..., 0]) / a[..., 0].size
            luma = _rms(a)[0] * _rms(b)[0] + _TINY**2
            found += [np.log(_rms(a - b) + _TINY), np.array([together / luma])]
    shift = np.abs((face.picture - candidate.picture).mean(axis=(0, 1)))
    return np.concatenate([*found, shift]).astype(np.float32)


def _of_one(of: Bands) -> Iterator[Values]:
    for detail in of.details:
        for part in _regions(detail):
            luma = np.ascontiguousarray(part[..., 0])
            power = luma * luma
            yield np.log(_rms(part) + _TINY)
            near = cv2.blur(power, (3, 3))[:: 1 + len(luma) // 100, :: 1 + len(luma) // 100].ravel()
            local = np.sqrt(near.clip(min=0))  # rounding may leave it below
            yield np.log(np.quantile(local, _QUANTILES) + _TINY).astype(np.float32)
            neighbours = float(np.vdot(luma[:, 1:], luma[:, :-1]) + np.vdot(luma[1:], luma[:-1]))
            yield np.array([neighbours / (2 * float(power.sum()) + _TINY**2 * luma.size)], np.float32)
    luma = of.picture[..., 0]
    yield np.array([luma.mean(), luma.std(), _blockiness(luma), _blockiness(luma.T)], np.float32)


def _regions(band: Values) -> tuple[Values, Values]:
    """All of a band, and its middle."""
    n = len(band)
    inside = slice(n // 4, n - n // 4)
    return band, band[inside, inside]


def _rms(part: Values) -> Values:
    """(3,) by channel."""
    flat = part.reshape(-1, 3)
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", flat, flat) / len(flat)), np.float32)


def _blockiness(luma: Values) -> float:
    """How much of the steps between columns comes every eight: 0 for none."""
    steps = np.abs(np.diff(luma, axis=1)).mean(axis=0)
    steps = steps - steps.mean()
    columns = np.arange(len(steps)) * (2j * np.pi / _PERIOD)
    waves = [abs(np.vdot(np.exp(k * columns), steps)) for k in (1, 2, 3, 4)]
    return float(max(waves) / (np.abs(steps).sum() + _TINY))


def _resized(image: Uint8Image, side: int) -> Uint8Image:
    if len(image) == side:
        return image
    how = cv2.INTER_AREA if side < len(image) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)
