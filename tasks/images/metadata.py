"""Reads what an image file has beside its pixels: EXIF, ICC profile, XMP, IPTC, resolution, number of frames."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from PIL import ExifTags, Image

from tasks.images.beside import Beside
from tasks.images.exif_block import ExifBlock, plausible, upright_xmp, xmp_orientation
from tasks.images.jpeg_segments import iptc_of
from tasks.images.limits import MAX_BLOCK
from tasks.images.tiff_directories import Contents, Tags, Tiff, directory_bytes

_T = TypeVar("_T")

# The TIFF tags that are about the image; the others describe the layout of the file that it came in.
_TIFF_KEEP = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip
_EXIF, _INTEROPERABILITY = (34665, 34853), 40965  # directories
_LAST_TYPE = 13  # of EXIF's; what follows is BigTIFF's
_ICC, _XMP, _IPTC, _PHOTOSHOP = 34675, 700, 33723, 34377
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP", b"\x01\xff\xfe\xfd"  # before and behind it
_INCH = {1: math.nan, 2: 1.0, 3: 2.54}  # TIFF's ResolutionUnit: none, inch, centimetre


def settle(beside: Beside, stated: int = 0) -> int:
    """The orientation of an image, 1 to 8: as the file itself has `stated` it, or else its EXIF, or its XMP. All that
    is beside the image then holds for the upright one."""
    orientation = stated if 1 <= stated <= 8 else _orientation(beside)
    is_turned = orientation > 4
    if beside.exif is not None:
        try:
            block = ExifBlock(beside.exif)
            beside.dpi = beside.dpi or _dpi_of(block)
            beside.exif = block.upright(is_turned)
        except (ValueError, struct.error):  # broken metadata is no reason to reject an image
            beside.exif = None
            beside.left_out("EXIF that is damaged")
    if beside.dpi is not None and is_turned:
        beside.dpi = beside.dpi[::-1]
    if beside.xmp is not None:
        beside.xmp, gone = upright_xmp(beside.xmp)
        for what in gone:
            beside.left_out(what)
    return orientation


def _orientation(beside: Beside) -> int:
    found = 1
    with suppress(ValueError, struct.error):
        found = ExifBlock(beside.exif or b"").orientation
    return found if found > 1 else xmp_orientation(beside.xmp)


def _dpi_of(block: ExifBlock) -> tuple[float, float] | None:
    try:
        return block.dpi
    except struct.error:
        return None


def icc_that_fits(icc: bytes | None, *, grey: bool) -> bytes | None:
    """The profile, if it fits the colour space in which the image will be written."""
    if not icc:
        return None
    return icc if icc[16:20] in ((b"GRAY", b"RGB ") if grey else (b"RGB ",)) else None


def beside_pillow(image: Image.Image, file: bytes = b"") -> Beside:
    """What Pillow found in a WebP, BMP or GIF, and XMP in the `file` of the latter, of which Pillow knows nothing."""
    beside = Beside(icc=image.info.get("icc_profile") or None, n_frames=_claimed_frames(image))
    for key in ("exif", "xmp"):
        found = image.info.get(key)
        setattr(beside, key, found if isinstance(found, bytes) and found else None)
    if image.format == "GIF":
        beside.xmp = _xmp_of_gif(file)
    comment = image.info.get("comment")
    if isinstance(comment, bytes) and comment:
        beside.comments.append(comment)
    try:
        x, y = (float(value) for value in image.info["dpi"])
        beside.dpi = plausible(x, y)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        pass
    return beside


def _xmp_of_gif(file: bytes) -> bytes | None:
    before, behind = _GIF_XMP
    start = file.find(before) + len(before)
    stop = file.find(behind, start) if start >= len(before) else -1
    return file[start:stop] if start < stop <= start + MAX_BLOCK else None


def beside_tiff(tiff: Tiff, found: Contents) -> tuple[Beside, int]:
    """What a TIFF has beside its image, and its orientation. What the image's own directory lacks is taken from the
    first one: a camera's picture may stand below its preview."""
    beside = Beside(n_frames=len(found.pages))
    for other in found.others:
        beside.left_out(other)
    tags = found.image.tags
    for tag, keep in ((_ICC, "icc"), (_XMP, "xmp"), (_IPTC, "iptc")):
        value = bytes(tags[tag][2]) if tag in tags else b""
        if len(value) > MAX_BLOCK:
            beside.left_out(f"{keep.upper()} of {len(value)} bytes")
        elif value:
            setattr(beside, keep, value)
    if beside.iptc is None and _PHOTOSHOP in tags:
        beside.iptc = iptc_of(bytes(tags[_PHOTOSHOP][2]))
    beside.dpi = _guarded(lambda: _tiff_dpi(tiff, found))
    beside.exif = _guarded(lambda: _tiff_exif(tiff, found))
    places = [tags, _first_tags(tiff)]
    stated = next((tiff.numbers(t[ExifTags.Base.Orientation])[0] for t in places if ExifTags.Base.Orientation in t), 0)
    return beside, settle(beside, stated)


def _first_tags(tiff: Tiff) -> Tags:
    return tiff.at(tiff.first).tags


def _guarded(read: Callable[[], _T | None]) -> _T | None:
    try:
        return read()
    except Exception:  # Pillow's parser raises anything at all; broken metadata is no reason to reject an image
        return None


def _tiff_dpi(tiff: Tiff, found: Contents) -> tuple[float, float] | None:
    tags = found.image.tags
    unit = _INCH[tiff.numbers(tags[ExifTags.Base.ResolutionUnit])[0] if ExifTags.Base.ResolutionUnit in tags else 2]
    sides = (tags[tag][2] for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    x, y = (a / b * unit for a, b in (struct.unpack(tiff.order + "II", side) for side in sides))
    return plausible(x, y)


def _tiff_exif(tiff: Tiff, found: Contents) -> bytes | None:
    """The EXIF of a TIFF: cameras and scanners write the same tags into the TIFF itself."""
    places = [_first_tags(tiff), found.image.tags]
    about: Tags = {int(tag): tags[tag] for tags in places for tag in _TIFF_KEEP if tag in tags}
    below: dict[int, Tags] = {}
    for tag in _EXIF:
        for tags in places:
            if tag in tags:
                inner = tiff.at(tiff.numbers(tags[tag])[0]).tags
                below[tag] = {t: value for t, value in inner.items() if value[0] <= _LAST_TYPE}
    size = sum(len(value[2]) for tags in (about, *below.values()) for value in tags.values())
    if (not about and not below) or size > MAX_BLOCK:
        return None
    first = 8
    about |= dict.fromkeys(below, _link(tiff, 0))
    at = first + len(directory_bytes(about, first, tiff.order))  # where what comes next starts: by the sizes alone
    parts = []
    for tag, tags in below.items():
        tags.pop(_INTEROPERABILITY, None)
        about[tag] = _link(tiff, at)
        parts.append(directory_bytes(tags, at, tiff.order))
        at += len(parts[-1])
    head = (b"II*\0" if tiff.order == "<" else b"MM\0*") + tiff.pack("I", first)
    return b"".join([b"Exif\0\0", head, directory_bytes(about, first, tiff.order), *parts])


def _link(tiff: Tiff, at: int) -> tuple[int, int, memoryview]:
    return 4, 1, memoryview(tiff.pack("I", at))


def _claimed_frames(image: Image.Image) -> int:
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # a truncated GIF
        return 1
