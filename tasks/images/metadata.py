"""What an image file has besides pixels: EXIF, ICC profile, resolution, number of frames."""

from __future__ import annotations

import io
import math
import re
from collections.abc import MutableMapping
from typing import Any

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

MAX_FRAMES = 4096
"""TIFF pages that are counted at most: a small file can list any number of them."""

MAX_SEGMENTS = 10_000
"""Segments of a JPEG. A large ICC profile or thumbnail is spread over up to 255 of them."""
_JPEG_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # all but the markers without a length: TEM, RST0-7, SOI
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA

# The TIFF tags that are about the image; the others describe the layout of the file that it came in.
_TIFF_KEEP = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip


def orientation_of(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; 1 if there is no valid one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to reject an image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_of(image: Image.Image, orientation: int) -> bytes | None:
    """The EXIF block with its orientation reset to 1; byte for byte as it was if it is 1 already."""
    try:
        raw = image.info.get("exif")
        if isinstance(raw, bytes) and orientation == 1:
            return b"Exif\0\0" + raw.removeprefix(b"Exif\0\0")
        exif = _tiff_exif(image) if image.format == "TIFF" else image.getexif()
        if orientation != 1:
            exif[ExifTags.Base.Orientation] = 1
        return exif.tobytes() if len(exif) else None
    except Exception:  # as for the orientation
        return None


# Tags that count pixels, or pixels per unit of length: they grow with the image.
_SIZES = (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength, ExifTags.Base.XResolution, ExifTags.Base.YResolution)
_EXIF_SIZES = (
    ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight,
    ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution,
)  # fmt: skip


def enlarged_exif(raw: bytes | None, scale: int) -> bytes | None:
    """The EXIF block of an image that was enlarged by `scale`; byte for byte as it was if it says nothing of the
    size."""
    if raw is None or scale == 1:
        return raw
    exif = Image.Exif()
    try:
        exif.load(raw)
        changed = [_grow(exif, _SIZES, scale), _grow(exif.get_ifd(ExifTags.IFD.Exif), _EXIF_SIZES, scale)]
        return exif.tobytes() if any(changed) else raw
    except Exception:  # broken metadata: as for the orientation
        return raw


def _grow(tags: MutableMapping[int, Any], names: tuple[int, ...], scale: int) -> bool:
    found = {name: tags[name] for name in names if isinstance(tags.get(name), int | float | IFDRational)}
    for name, value in found.items():
        tags[name] = scale * value
    return bool(found)


def icc_of(image: Image.Image) -> bytes | None:
    """The ICC profile, if it fits the colour space in which the image will be written."""
    icc = image.info.get("icc_profile")
    if not isinstance(icc, bytes) or image.mode in ("CMYK", "LAB"):
        return None
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
    return icc if icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Horizontal and vertical pixels per inch; None unless both are plausible."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(value) and 1 <= value <= 100_000 for value in (x, y)) else None


def count_frames(data: bytes, kind: str) -> int:
    """How many frames or pages can be reached, at least 1; a broken list of pages counts up to its break."""
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        if kind != "TIFF":
            return _claimed_frames(image)
        for page in range(1, MAX_FRAMES):
            try:
                image.seek(page)
            except Exception:  # EOFError at the end, any type at all in a broken list
                return page
    return MAX_FRAMES


def count_scans(data: bytes, limit: int) -> int:
    """How many scans a JPEG has; `limit` if there are more, or more than `MAX_SEGMENTS` segments.

    A decoder passes over the whole image once a scan, so a small file with many scans can keep it busy for very long.
    """
    scans = at = 0
    for _ in range(MAX_SEGMENTS):
        found = _JPEG_SEGMENT.search(data, at)
        if found is None or found[1][0] == _JPEG_END:
            return scans
        scans += found[1][0] == _JPEG_SCAN
        if scans == limit:
            return limit
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # then a scan's data, skipped by search
    return limit


def _claimed_frames(image: Image.Image) -> int:
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # a truncated GIF
        return 1


def _tiff_exif(image: Image.Image) -> Image.Exif:
    """The EXIF of a TIFF: cameras and scanners write the same tags into the TIFF itself."""
    tags, exif = image.getexif(), Image.Exif()
    for tag in _TIFF_KEEP:
        if tag in tags:
            exif[tag] = tags[tag]
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(group):
            exif.get_ifd(group).update(found)
            exif[group] = dict(found)
    return exif
