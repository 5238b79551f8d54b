"""By how much a photo is enlarged, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, Protocol

import numpy as np

from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image
from tasks.config.resolve import PhotoSettings
from tasks.images.codec import DecodedImage, Format, largest_factor

FACTORS = (1, 2, 4)


class Enlarge(Protocol):
    """What enlarges a photo: (H, W, 3) -> `factor` times the height and the width; the image itself for 1."""

    def __call__(self, image: Uint8Image, factor: int, /) -> Uint8Image: ...


@dataclass(frozen=True)
class Enlargement:
    factor: int = 1
    note: str | None = None


def choose_enlargement(
    asked: int | Literal["auto"], sides: Sequence[float], size: int, image: DecodedImage, fmt: Format
) -> Enlargement:
    """How much a photo, whose faces have these `sides` in its pixels, is enlarged for a network of this `size`: as
    asked, or less where the image would become too large to write."""
    wanted = _as_large_as_network(sides, size) if asked == "auto" else asked
    if wanted == 1:
        return Enlargement()
    factor = min(wanted, largest_factor(image, fmt))
    done = f"enlarged {factor} x" if factor > 1 else "not enlarged"
    return Enlargement(factor, done if factor == wanted else f"{done}: {wanted} x is too large for one {fmt}")


def window_scale(photos: PhotoSettings | None) -> int:
    """The factor by which a worker has to expect photos to be enlarged, where memory is planned."""
    asked = photos.upscale if photos else 1
    return 2 if asked == "auto" else asked


def from_enlarged(matrix: Matrix, factor: int) -> Matrix:
    """The matrix photo -> crop, for the enlarged photo: pixel centres stay on pixel centres."""
    found = matrix.copy()
    found[:, :2] /= factor
    found[:, 2] += matrix[:, :2] @ np.full(2, (1 / factor - 1) / 2)
    return found


def _as_large_as_network(sides: Sequence[float], size: int) -> int:
    """The smallest factor at which half of the faces are not smaller than the network's, or else the largest."""
    return next((factor for factor in FACTORS if sides and factor * median(sides) >= size), FACTORS[-1] if sides else 1)
