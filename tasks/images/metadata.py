"""What travels with a picture beside its pixels: EXIF, ICC profile, resolution, number of frames."""

from __future__ import annotations

import io
import math
import re

from PIL import ExifTags, Image

MAX_FRAMES = 4096
"""TIFF pages that are counted: a file can list any number of them at no cost to itself."""

MAX_SEGMENTS = 10_000
"""Of a JPEG: profiles and thumbnails come in up to 255 each."""
_JPEG_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # not those without a length: TEM, RST0 to RST7, SOI
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA

# Of a TIFF's tags, those about the picture; the others describe the file that it came in.
_TIFF_KEEP = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip


def orientation_of(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; 1 when there is none that means anything."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to lose a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_of(image: Image.Image, orientation: int) -> bytes | None:
    """The EXIF block with the orientation reset to 1; byte for byte as it was when there is none to reset."""
    try:
        raw = image.info.get("exif")
        if isinstance(raw, bytes) and orientation == 1:
            return b"Exif\0\0" + raw.removeprefix(b"Exif\0\0")
        exif = _tiff_exif(image) if image.format == "TIFF" else image.getexif()
        if orientation != 1:
            exif[ExifTags.Base.Orientation] = 1
        return exif.tobytes() if len(exif) else None
    except Exception:  # as above
        return None


def icc_of(image: Image.Image) -> bytes | None:
    """The ICC profile, if it describes the kind of picture that this will be written as."""
    icc = image.info.get("icc_profile")
    if not isinstance(icc, bytes) or image.mode in ("CMYK", "LAB"):
        return None
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
    return icc if icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Horizontal and vertical pixels per inch, when both make sense."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(value) and 1 <= value <= 100_000 for value in (x, y)) else None


def count_frames(data: bytes, kind: str) -> int:
    """How many frames or pages can be reached, at least 1; a broken list ends where it breaks."""
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        if kind != "TIFF":
            return _claimed_frames(image)
        for page in range(1, MAX_FRAMES):
            try:
                image.seek(page)
            except Exception:  # EOFError at the end, anything at all in a broken list
                return page
    return MAX_FRAMES


def count_scans(data: bytes, limit: int) -> int:
    """How many scans a JPEG decoder will find, which goes over the whole picture for each; `limit` if there are more,
    or more segments than can be meant well."""
    scans = at = 0
    for _ in range(MAX_SEGMENTS):
        found = _JPEG_SEGMENT.search(data, at)
        if found is None or found[1][0] == _JPEG_END:
            return scans
        scans += found[1][0] == _JPEG_SCAN
        if scans == limit:
            return limit
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # a scan's pixels follow: no segment
    return limit


def _claimed_frames(image: Image.Image) -> int:
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # a truncated GIF
        return 1


def _tiff_exif(image: Image.Image) -> Image.Exif:
    """Cameras and scanners write the same tags into a TIFF itself."""
    tags, exif = image.getexif(), Image.Exif()
    for tag in _TIFF_KEEP:
        if tag in tags:
            exif[tag] = tags[tag]
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(group):
            exif.get_ifd(group).update(found)
            exif[group] = dict(found)
    return exif
