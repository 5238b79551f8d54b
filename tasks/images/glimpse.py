"""A small grey view of a picture, at a small cost and without torch: for the driver, which only takes a look."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tasks.images.kinds import kind_of
from tasks.images.tiff_directories import Tiff, contents, tile_fits

FORMATS = (  # tried in this order; Pillow's parsers of other formats are never reached, so their bugs are not either
    "JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000",
)  # fmt: skip
_SLOW = ("HEIF", "JXL", "RAW", "PDF", "DICOM")  # read as they are for restoring: Pillow knows none of them

MAX_PIXELS = 50_000_000  # of a picture that is decoded to be looked at
_TURNED = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}  # orientation -> degrees, anticlockwise


@dataclass(frozen=True, eq=False)
class Glimpse:
    """A picture's size in pixels, upright, and its view."""

    width: int
    height: int
    view: NDArray[np.uint8] | None  # (H, W) grey, upright; None for a picture too large to be decoded for a look


def glimpse(data: bytes | None, side: int) -> Glimpse | None:
    """The picture with a view whose longer side is `side` px; None if it does not decode."""
    if not data:
        return None
    try:
        if (kind := kind_of(data)) in _SLOW:
            return _slow_glimpse(kind, data, side)
        if kind == "TIFF" and not tile_fits(tiff := Tiff(data), contents(tiff).image, least=2**20):
            return None
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            turned = _TURNED.get(image.getexif().get(ExifTags.Base.Orientation, 1), 0)
            width, height = image.size if turned in (0, 180) else image.size[::-1]
            if image.width * image.height > MAX_PIXELS:
                return Glimpse(width, height, None)
            image.draft("L", (side, side))
            scale = side / max(image.size)
            small = image.convert("L").resize([max(1, round(scale * n)) for n in image.size])
            return Glimpse(width, height, np.asarray(small.rotate(turned, expand=True), dtype=np.uint8))
    except Exception:  # Pillow raises anything; what is wrong is said where the row is restored
        return None


def _slow_glimpse(kind: str, data: bytes, side: int) -> Glimpse:
    from tasks.images import readers  # with torch

    pixels = readers.read(kind, data, MAX_PIXELS)[0].pixels
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    small = Image.fromarray(pixels).convert("L").resize([max(1, round(scale * n)) for n in (width, height)])
    return Glimpse(width, height, np.asarray(small, dtype=np.uint8))
