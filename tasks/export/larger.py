"""What a file says of its size and resolution beside its pixels, once these are enlarged: it prints as large as before,
as the run's own rows do. All else stays where it stands."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Tag = tuple[int, bytes]
"""Type and values of a tag of a TIFF."""

_SHORT, _LONG, _RATIONAL = 3, 4, 5
_RESOLUTIONS = (282, 283)
_BELOW = (0xA002, 0xA003, 0xA20E, 0xA20F)  # of the EXIF directory: pixel dimensions, focal plane resolutions


def larger_jfif(content: bytes, factor: int) -> bytes:
    """The JFIF segment; densities that only give the shape of a pixel stay."""
    if factor == 1 or len(content) < 12 or not content[7]:
        return content
    return content[:8] + (_times(">HH", content[8:12], factor) or content[8:12]) + content[12:]


def larger_phys(content: bytes, factor: int) -> bytes:
    """The pHYs chunk of a PNG; a shape of pixels stays."""
    if factor == 1 or len(content) != 9 or not content[8]:
        return content
    return (_times(">II", content[:8], factor) or content[:8]) + content[8:]


def larger_photoshop(resolution: bytes, factor: int) -> bytes:
    """Photoshop's ResolutionInfo: two fixed-point numbers, each followed by its units."""
    if factor == 1 or len(resolution) < 12:
        return resolution
    both = _times(">II", resolution[:4] + resolution[8:12], factor)
    return resolution if both is None else both[:4] + resolution[4:8] + both[4:] + resolution[12:]


def larger_tags(tags: dict[int, Tag], order: str, factor: int, *, is_exif: bool = False) -> None:
    """The tags of a TIFF's directory, or those of its EXIF directory. Those of how pixels are stored are not among
    them."""
    for tag in _BELOW if is_exif else _RESOLUTIONS:
        if factor > 1 and tag in tags:
            tags[tag] = _larger(tags[tag], order, factor)


def _larger(tag: Tag, order: str, factor: int) -> Tag:
    kind, values = tag
    if kind == _RATIONAL and len(values) == 8:
        above, below = struct.unpack(f"{order}II", values)
        if factor * above < 2**32:
            return kind, struct.pack(f"{order}II", factor * above, below)
        return kind, struct.pack(f"{order}II", above, below // factor) if below % factor == 0 else values
    if kind in (_SHORT, _LONG) and len(values) in (2, 4):
        (value,) = struct.unpack(order + ("H" if len(values) == 2 else "I"), values)
        return _LONG, struct.pack(f"{order}I", min(factor * value, 2**32 - 1))
    return tag


def _times(form: str, values: bytes, factor: int) -> bytes | None:
    """All numbers times the factor; None if one does not fit any more."""
    numbers: Sequence[int] = [factor * number for number in struct.unpack(form, values)]
    try:
        return struct.pack(form, *numbers)
    except struct.error:
        return None
