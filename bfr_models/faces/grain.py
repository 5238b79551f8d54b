"""The grain of a photograph: measured where a face crop is flat, and given to the face that is put back into it.

A restored face is smooth. In a photo whose wall and coat keep the grain of film and paper it shows as a patch, though
no seam does. Grain is taken as Gaussian noise in two bands, each with a strength for luma and one for colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image

FloatImage = NDArray[np.float32]

BANDS = (0.0, 1.0, 2.0)  # sigma of the blurs between which a band lies, in px of the photo
FLAT_SHARE = 0.3  # of the crop's pixels: those with the least structure, where what varies is grain
STRONGEST = 4.0  # grey levels that given grain never exceeds: what is stronger is noise, which restoring takes away
INVISIBLE = 0.3  # grey levels below which there is no grain
_TO_SIGMA = 1.4826  # of a normal distribution, from its median absolute deviation
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Grain:
    """Standard deviations in grey levels, from the fine band to the coarse one."""

    luma: tuple[float, ...]
    colour: tuple[float, ...]  # of what each channel has over the luma

    @property
    def is_visible(self) -> bool:
        return max(self.luma) > INVISIBLE


def grain_of(crop: Uint8Image, scale: float = 1.0) -> Grain:
    """The grain of (H, W, 3), which has `scale` pixels for one of the photo."""
    image = crop.astype(np.float32)
    flat = _flat(image, scale)
    luma, colour = zip(*(_strength(band[flat]) for band in _bands(image, scale)), strict=True)
    return Grain(luma, colour)


def add_grain(face: Uint8Image, grain: Grain, scale: float, seed: int) -> Uint8Image:
    """`face` with as much of `grain` as it lacks; it has `scale` pixels for one of the photo. Same seed, same grain.

    Strong grain is given back in part only, up to `STRONGEST`; black and white have none.
    """
    if not grain.is_visible:
        return face
    own = grain_of(face, scale)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*face.shape[:2], 4), dtype=np.float32)
    image = face.astype(np.float32)
    added = np.zeros_like(image)
    for band, *strengths in zip(_bands(noise, scale), grain.luma, own.luma, grain.colour, own.colour, strict=True):
        luma, own_luma, colour, own_colour = strengths
        unit = band / max(float(band.std()), 1e-6)
        added += _lacking(luma, own_luma) * unit[..., 3:] + _lacking(colour, own_colour) * unit[..., :3]
    light = (image @ _LUMA / 255)[..., None]
    visible = np.sqrt((4 * light * (1 - light)).clip(0, 1))
    return np.rint(image + added * visible).clip(0, 255).astype(np.uint8)


def _lacking(wanted: float, there: float) -> float:
    """Standard deviation of the noise to add, in grey levels."""
    given = wanted / hypot(1, wanted / STRONGEST)
    return sqrt(max(0.0, given**2 - there**2))


def _bands(image: FloatImage, scale: float) -> Iterator[FloatImage]:
    finer = image
    for sigma in BANDS[1:]:
        coarser = _blurred(image, sigma * scale)
        yield finer - coarser
        finer = coarser


def _flat(image: FloatImage, scale: float) -> NDArray[np.bool_]:
    """(H, W): where the picture has no structure, and is neither black nor white."""
    smooth = _blurred(image, 2 * BANDS[-1] * scale)
    structure = sum(np.abs(slope).sum(axis=2) for slope in np.gradient(smooth, axis=(0, 1)))
    light = smooth @ _LUMA
    structure = np.where((light > 12) & (light < 243), structure, np.inf)
    return np.asarray(structure <= np.quantile(structure, FLAT_SHARE))


def _strength(values: FloatImage) -> tuple[float, float]:
    """Of luma and of colour, robust against the few pixels that do have structure."""
    luma = values @ _LUMA
    return _deviation(luma), _deviation(values - luma[:, None])


def _deviation(values: FloatImage) -> float:
    return _TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _blurred(image: FloatImage, sigma: float) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)
