"""What the judge sees of a face: statistics of its detail, band by band, and of how two pictures of it differ.

The bands are those of a Laplacian pyramid at the photo's own scale: there are grain, noise and the lattice of a JPEG,
which a resize would hide. Each statistic is of the whole crop and of its middle, where the face is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import TO_LUMA_AND_COLOUR, Uint8Image

Values = NDArray[np.float32]

SIDES = (32, 256)
"""A smaller face is enlarged to the first, a larger one shrunk to the second: what is not sharp there is not sharp."""
LEVELS = 4
OF_ONE, OF_TWO = LEVELS * 2 * 7 + 4, LEVELS * 2 * 4 + 3
"""Numbers of statistics."""
GREY = 0.05
"""A picture is grey if its colours vary by less than this share of its light."""
_QUANTILES = (0.2, 0.5, 0.9)
_PLACES = 50  # across a band: enough to know how its detail is spread by
_TAPS = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16
_TINY = 1e-4  # of values in [0, 1]
_PERIOD = 8  # px of a JPEG's blocks


@dataclass(frozen=True, eq=False)
class Region:
    """All of a band, or its middle."""

    planes: Values  # (3, h, w): luma and two colour differences
    rms: Values  # (3,) of the planes

    @classmethod
    def of(cls, planes: Values) -> Region:
        planes = np.ascontiguousarray(planes)
        return cls(planes, _rms(planes))

    @property
    def luma(self) -> Values:
        return self.planes[0]


@dataclass(frozen=True, eq=False)
class Bands:
    """A picture in bands, from fine to coarse, of values in [0, 1]."""

    regions: tuple[Region, ...]  # of each band the whole, and the middle
    luma: Values  # (n, n), of the picture
    mean: Values  # (3,) of the picture's channels

    @property
    def is_grey(self) -> bool:
        """Whether it has no colours but those of its tone: so do black and white prints, most of them old."""
        luma, *colours = self.regions[-2].rms  # of the coarsest band
        return bool(max(colours) < GREY * luma + _TINY)

    @cached_property
    def statistics(self) -> Values:
        """(OF_ONE,)"""
        return np.concatenate(list(_of_one(self))).astype(np.float32)


def bands(image: Uint8Image, side: int) -> Bands:
    """A square picture as it looks in a photo where it is `side` px wide, in bands."""
    seen = _resized(_resized(image, min(side, SIDES[1])), min(max(side, SIDES[0]), SIDES[1]))
    picture: Values = np.asarray(cv2.transform(seen.astype(np.float32) / 255, TO_LUMA_AND_COLOUR), np.float32)
    x, regions = picture, []
    for _ in range(LEVELS):
        smooth = np.asarray(cv2.sepFilter2D(x, cv2.CV_32F, _TAPS, _TAPS, borderType=cv2.BORDER_REFLECT_101), np.float32)
        detail: Values = np.stack(cv2.split(x - smooth)).astype(np.float32, copy=False)
        inside = slice(len(x) // 4, len(x) - len(x) // 4)
        regions += [Region.of(detail), Region.of(detail[:, inside, inside])]
        x = smooth[::2, ::2]
    return Bands(tuple(regions), np.ascontiguousarray(picture[..., 0]), np.array(cv2.mean(picture)[:3], np.float32))


def differences(face: Bands, candidate: Bands) -> Values:
    """(OF_TWO,) how two pictures of a face differ, band by band."""
    found: list[Values] = []
    for a, b in zip(face.regions, candidate.regions, strict=True):
        together = np.vdot(a.luma, b.luma) / a.luma.size
        found += [np.log(_rms(a.planes - b.planes) + _TINY), np.array([together / (a.rms[0] * b.rms[0] + _TINY**2)])]
    return np.concatenate([*found, np.abs(face.mean - candidate.mean)]).astype(np.float32)


def _of_one(of: Bands) -> Iterator[Values]:
    for region in of.regions:
        yield np.log(region.rms + _TINY)
        yield np.log(_local(region.luma) + _TINY)
        yield np.array([_smoothness(region)], np.float32)
    luma = of.luma
    yield np.array([luma.mean(), luma.std(), _blockiness(luma), _blockiness(luma.T)], np.float32)


def _local(luma: Values) -> Values:
    """How strong detail is in its weaker, its middling and its stronger places: quantiles of its local rms."""
    step = 1 + len(luma) // _PLACES
    power = cv2.blur(luma * luma, (3, 3))[::step, ::step].ravel().clip(min=0)  # rounding may leave it below
    power.sort()
    return np.sqrt(power[[int(q * len(power)) for q in _QUANTILES]])


def _smoothness(region: Region) -> float:
    """Correlation of neighbouring pixels."""
    luma = region.luma
    neighbours = float(np.vdot(luma[:, 1:], luma[:, :-1]) + np.vdot(luma[1:], luma[:-1]))
    return neighbours / ((2 * float(region.rms[0]) ** 2 + _TINY**2) * luma.size)


def _rms(planes: Values) -> Values:
    """(3,) by plane."""
    return np.sqrt(np.array([np.vdot(plane, plane) / plane.size for plane in planes], np.float32))


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
