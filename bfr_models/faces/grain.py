"""The grain of a photograph: measured where a face crop is flat, and given to the face that is put back into it.

A restored face is smooth. In a photo whose wall and coat keep the grain of film and paper it shows as a patch, though
no seam does. Grain is taken as Gaussian noise in two bands, each with a strength for luma and one for colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import hypot, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import BLUE, GREEN, RED, TO_LUMA_AND_COLOUR, Uint8Image

FloatImage = NDArray[np.float32]

BANDS = (0.0, 1.0, 2.0)  # sigma of the blurs between which a band lies, in px of the photo
FLAT_SHARE = 0.3  # of the crop's pixels: those with the least structure, where what varies is grain
MEASURED = 5_000  # of those: enough to measure it by
STRONGEST = 4.0  # grey levels that given grain never exceeds: what is stronger is noise, which restoring takes away
INVISIBLE = 0.3  # grey levels below which there is no grain
NOISE_SIDE = 512  # px of the noise that all grain is cut from, each face's at a place of its own
SCALE_STEP = 0.25  # that noise is made for scales that are multiples of this
_TO_SIGMA = 1.4826  # of a normal distribution, from its median absolute deviation
_TO_RGB = np.array([(1, 1, 0), (1, -RED / GREEN, -BLUE / GREEN), (1, 0, 1)], np.float32)


@dataclass(frozen=True)
class Grain:
    """Standard deviations in grey levels, from the fine band to the coarse one."""

    luma: tuple[float, ...]
    colour: tuple[float, ...]  # of what red and blue have over the luma

    @property
    def is_visible(self) -> bool:
        return max(self.luma) > INVISIBLE


def grain_of(crop: Uint8Image, scale: float = 1.0) -> Grain:
    """The grain of (H, W, 3), which has `scale` pixels for one of the photo."""
    image = np.asarray(cv2.transform(crop.astype(np.float32), TO_LUMA_AND_COLOUR), np.float32)
    flat = np.flatnonzero(_flat(image[..., 0], scale))
    flat = flat[:: max(1, len(flat) // MEASURED)]
    found = [band.reshape(-1, 3)[flat] for band in _bands(image, scale)]
    return Grain(tuple(_deviation(band[:, 0]) for band in found), tuple(_deviation(band[:, 1:]) for band in found))


def add_grain(face: Uint8Image, grain: Grain, scale: float, seed: int) -> Uint8Image:
    """`face`, (n, n, 3), with as much of `grain` as it lacks; it has `scale` pixels for one of the photo. Same seed,
    same grain.

    Strong grain is given back in part only, up to `STRONGEST`; black and white have none.
    """
    if not grain.is_visible:
        return face
    own = grain_of(face, scale)
    noise = np.zeros(face.shape, np.float32)
    for band, luma, own_luma, colour, own_colour in zip(
        _noise(scale, len(face), seed), grain.luma, own.luma, grain.colour, own.colour, strict=True
    ):
        noise += band * np.array([_lacking(luma, own_luma), *[_lacking(colour, own_colour)] * 2], np.float32)
    image = face.astype(np.float32)
    light = cv2.transform(image, TO_LUMA_AND_COLOUR[:1] / 255)[..., None]
    strength = np.sqrt((4 * light * (1 - light)).clip(0, 1))  # black and white have none
    return np.rint(image + strength * cv2.transform(noise, _TO_RGB)).clip(0, 255).astype(np.uint8)


def _lacking(wanted: float, there: float) -> float:
    """Standard deviation of the noise to add, in grey levels."""
    given = wanted / hypot(1, wanted / STRONGEST)
    return sqrt(max(0.0, given**2 - there**2))


def _noise(scale: float, side: int, seed: int) -> Iterator[FloatImage]:
    """Luma, red and blue of each band, (side, side, 3) with a standard deviation of 1."""
    rng = np.random.default_rng(seed)
    rows, columns = ((first + np.arange(side)) % NOISE_SIDE for first in rng.integers(NOISE_SIDE, size=2))
    turns, sign = int(rng.integers(4)), 1 - 2 * int(rng.integers(2))
    for band in _all_noise(max(1, round(scale / SCALE_STEP))):
        yield sign * np.rot90(band[rows][:, columns], turns)


@lru_cache(maxsize=8)
def _all_noise(steps: int) -> tuple[FloatImage, ...]:
    """For faces of `steps` times `SCALE_STEP` pixels for one of the photo."""
    white = np.random.default_rng(0).standard_normal((NOISE_SIDE, NOISE_SIDE, 3), dtype=np.float32)
    return tuple(band / band.std() for band in _bands(white, steps * SCALE_STEP))


def _bands(image: FloatImage, scale: float) -> Iterator[FloatImage]:
    finer = image
    for sigma in BANDS[1:]:
        coarser = _blurred(image, sigma * scale)
        yield finer - coarser
        finer = coarser


def _flat(luma: FloatImage, scale: float) -> NDArray[np.bool_]:
    """(H, W): where the picture has no structure, and is neither black nor white."""
    smooth = _blurred(luma, 2 * BANDS[-1] * scale)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *along, ksize=1) for along in ((1, 0), (0, 1)))
    structure = np.abs(across) + np.abs(down)
    lit = (smooth > 12) & (smooth < 243)
    if not lit.any():
        return np.ones(luma.shape, dtype=np.bool_)
    of_lit = structure[lit][:: max(1, int(lit.sum()) // (4 * MEASURED))]
    return np.asarray(lit & (structure <= np.quantile(of_lit, FLAT_SHARE)))


def _deviation(values: FloatImage) -> float:
    """Robust against the few pixels that do have structure."""
    return _TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _blurred(image: FloatImage, sigma: float) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)
