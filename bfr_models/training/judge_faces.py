"""Faces in photos for the judge to learn from: clean, slightly worn, aged and spoilt ones, each with its clean self.

As the worker cuts them: the photo lies at any angle, is damaged as a whole, and the face's place is found a little
beside the true one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import nan

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.degradation.ageing import age
from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.faces.align import at_scale, warp
from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image, as_grey, resize, to_tensor, to_uint8

SIDES = tuple(round(40 * 2 ** (step / 6)) for step in range(23))  # px of the face in its photo, from 40 to 508
SURROUNDINGS = 1.25  # side of the photo over that of the face
CLEAN, WORN, AGED = 0.25, 0.35, 0.15  # shares of the faces; the rest is degraded by the presets
PRESETS = (
    ("gfpgan",) * 6 + ("difface",) * 6 + ("archive",) * 5 + ("gfpgan_extreme", "difface_extreme", "codeformer_large")
)


@dataclass(frozen=True, eq=False)
class PhotoFace:
    """A face of a damaged photo: `crop` at the photo's scale, `lq` at the network's, and `clean` as large as `crop`."""

    crop: Uint8Image
    lq: Uint8Image
    clean: Uint8Image
    is_grey: bool
    blur: float  # sigma, px at 128 px; nan where a preset drew it
    noise: float  # grey levels; nan likewise, and where a print's own grain is beside it
    compression: float  # (100 - JPEG quality) / 100; nan likewise
    kind: str  # clean, light, worn, aged, or the preset


@dataclass(frozen=True)
class _Wear:
    blur: float
    noise: float
    quality: int | None  # None: no JPEG
    grain: float  # grey levels of luma noise that is coarser than a pixel
    aged: bool = False  # as a print, before all that


def photo_face(face: Uint8Image, size: int, rng: np.random.Generator, is_light: bool = False) -> PhotoFace:
    """A face of (S, S, 3) in a photo of its own, cut out again; `size` is the network's. Of any damage, or light."""
    side = SIDES[rng.integers(len(SIDES))]
    is_grey = bool(rng.random() < 0.3)
    if is_grey:
        face = as_grey(face)
    if rng.random() < 0.5:
        face = np.ascontiguousarray(face[:, ::-1])
    photo, place = _photo(face, side, rng)
    kind, wear = _light(rng) if is_light else _kind(rng)
    damaged = _worn(photo, wear, side, rng) if wear else _by_preset(photo, kind, side, rng)
    if is_grey:
        damaged = as_grey(damaged)
    to_face = _jittered(place, side, rng)
    return PhotoFace(
        crop=_cut(damaged, to_face, side, side),
        lq=_cut(damaged, to_face, side, size),
        clean=_cut(photo, to_face, side, side),
        is_grey=is_grey,
        blur=wear.blur if wear else nan,
        noise=float(np.hypot(wear.noise, wear.grain)) if wear and not wear.aged else nan,
        compression=(0.0 if wear.quality is None else (100 - wear.quality) / 100) if wear else nan,
        kind=kind,
    )


def _kind(rng: np.random.Generator) -> tuple[str, _Wear | None]:
    drawn = rng.random()
    if drawn < CLEAN:
        quality = int(rng.integers(85, 99)) if rng.random() < 0.7 else None
        return "clean", _Wear(rng.uniform(0, 0.2) * (rng.random() < 0.3), rng.uniform(0, 1.5) * (rng.random() < 0.4),
                              quality, rng.uniform(0, 1.5) * (rng.random() < 0.2))  # fmt: skip
    if drawn < CLEAN + WORN:
        quality = int(rng.integers(40, 96)) if rng.random() < 0.9 else None
        return "worn", _Wear(rng.uniform(0, 1.8) * (rng.random() < 0.85), rng.uniform(0, 11) * (rng.random() < 0.8),
                             quality, rng.uniform(1, 8) * (rng.random() < 0.25))  # fmt: skip
    if drawn < CLEAN + WORN + AGED:
        quality = int(rng.integers(30, 96)) if rng.random() < 0.9 else None
        return "aged", _Wear(rng.uniform(0, 0.8) * (rng.random() < 0.5), rng.uniform(0, 4) * (rng.random() < 0.3),
                             quality, 0, aged=True)  # fmt: skip
    return PRESETS[rng.integers(len(PRESETS))], None


def _light(rng: np.random.Generator) -> tuple[str, _Wear]:
    """Between clean and worn, where it is hardest to say what a face gains."""
    quality = int(rng.integers(60, 96)) if rng.random() < 0.9 else None
    return "light", _Wear(rng.uniform(0, 1) * (rng.random() < 0.9), rng.uniform(0, 5.5) * (rng.random() < 0.85),
                          quality, rng.uniform(0.5, 4) * (rng.random() < 0.25))  # fmt: skip


def _photo(face: Uint8Image, side: int, rng: np.random.Generator) -> tuple[Uint8Image, Matrix]:
    """The face `side` px wide in a photo, mirrored beyond its border, and the matrix face -> photo."""
    scaled = to_uint8(resize(to_tensor(face)[None], side)[0])
    angle = 0.0 if rng.random() < 0.5 else float(np.deg2rad(rng.uniform(-15, 15)))
    extent = round(side * SURROUNDINGS)
    cos, sin, middle = np.cos(angle), np.sin(angle), (side - 1) / 2
    shift = (extent - 1) / 2 + (np.rint(rng.uniform(-2, 2, 2)) if angle == 0 else rng.uniform(-2, 2, 2))
    if angle == 0:
        shift = np.floor(shift - middle) + middle  # whole pixels: nothing is resampled
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = shift - matrix[:, :2] @ (middle, middle)
    photo = cv2.warpAffine(scaled, matrix, (extent, extent), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(photo, dtype=np.uint8), matrix


def _jittered(place: Matrix, side: int, rng: np.random.Generator) -> Matrix:
    """The matrix photo -> face, as from landmarks that are a little off; for some faces exactly true."""
    back = np.asarray(cv2.invertAffineTransform(place), dtype=np.float64)
    if rng.random() < 0.3:
        return back
    angle, scale = np.deg2rad(rng.normal(0, 1.5)), 1 + rng.normal(0, 0.03)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (side - 1) / 2)
    linear = turn @ back[:, :2]
    offset = turn @ (back[:, 2] - middle) + middle + rng.normal(0, 0.01 * side, 2)
    return np.column_stack([linear, offset])


def _cut(photo: Uint8Image, to_face: Matrix, side: int, size: int) -> Uint8Image:
    return warp(photo, at_scale(to_face, size / side), size)


def _worn(photo: Uint8Image, wear: _Wear, side: int, rng: np.random.Generator) -> Uint8Image:
    image: NDArray[np.floating] = (age(photo, rng) if wear.aged else photo).astype(np.float32)
    if wear.blur:
        sigma = max(0.05, wear.blur * side / 128)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)
    if wear.noise:
        image = image + rng.normal(0, wear.noise, image.shape)
    if wear.grain:
        coarse = cv2.GaussianBlur(
            rng.standard_normal(image.shape[:2]).astype(np.float32), (0, 0), rng.uniform(0.5, 1.2)
        )
        image = image + (wear.grain * coarse / coarse.std())[..., None]
    return _jpeg(np.rint(image).clip(0, 255).astype(np.uint8), wear.quality, rng)


def _by_preset(photo: Uint8Image, preset: str, side: int, rng: np.random.Generator) -> Uint8Image:
    """At the preset's own scale, which is that of a face of 512 px; some are compressed once more."""
    damaged = degrade(photo, get_preset(preset), int(rng.integers(2**62)))
    return _jpeg(damaged, int(rng.integers(75, 98)) if rng.random() < 0.5 else None, rng)


def _jpeg(image: Uint8Image, quality: int | None, rng: np.random.Generator) -> Uint8Image:
    if quality is None:
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2 * int(rng.integers(2)))
    return np.asarray(Image.open(buffer))
