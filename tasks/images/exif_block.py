"""Reads and amends EXIF blocks where they stand, so that every other byte stays too: maker notes hold offsets."""

from __future__ import annotations

import math
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_STRIPS, _STRIP_BYTES = 0x0111, 0x0117
_EXIF_DIRECTORY = 0x8769
# Tags that count pixels, or pixels per unit of length: they grow with the image.
_GROWING = (0x0100, 0x0101, _X_RESOLUTION, _Y_RESOLUTION)
_GROWING_BELOW = (0xA002, 0xA003, 0xA20E, 0xA20F)  # pixel dimensions, focal plane resolutions
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_PREFIX = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)([0-9])")
_XMP_OF_OLD_PIXELS = {  # properties of XMP that hold or announce what shows the old image, or stands behind it
    rb"xmp:Thumbnails": "",
    rb"Container:Directory": "",
    rb"xmpNote:HasExtendedXMP": "",
    rb"hdrgm:\w+": "",  # a gain map, which the list of pictures names
    rb"(?:GCamera:(?:MotionPhoto|MicroVideo)|OpCamera:)\w*": "a video",
    rb"GDepth:\w+": "a map of depths",
    rb"GImage:\w+": "another picture in XMP",
    rb"GAudio:\w+": "sound",
}
_IN_PAIRS = ((0x0100, 0x0101), (_X_RESOLUTION, _Y_RESOLUTION))  # what is along the rows, and across them
_IN_PAIRS_BELOW = ((0xA002, 0xA003), (0xA20E, 0xA20F))


class ExifBlock:
    """An EXIF block. ValueError or struct.error wherever it is broken."""

    def __init__(self, block: bytes) -> None:
        self._data = bytearray(block.removeprefix(_PREFIX))
        self._order = {b"II": "<", b"MM": ">"}.get(bytes(self._data[:2]), "")
        if not self._order or self._unpack("H", 2) != 42:
            raise ValueError("expected EXIF to start as a TIFF does")
        self._first = self._unpack("I", 4)

    @property
    def orientation(self) -> int:
        """1 to 8; 1 if there is no valid one."""
        value = self._number(self._first, _ORIENTATION)
        return value if value is not None and 1 <= value <= 8 else 1

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Horizontal and vertical pixels per inch."""
        unit = {2: 1.0, 3: 2.54}.get(self._number(self._first, _UNIT) or 2)
        places = dict(self._entries(self._first))
        if unit is None or _X_RESOLUTION not in places or _Y_RESOLUTION not in places:
            return None
        x, y = (self._rational(places[tag]) * unit for tag in (_X_RESOLUTION, _Y_RESOLUTION))
        return plausible(x, y)

    def upright(self, is_turned: bool) -> bytes:
        """The block with orientation 1 and without its thumbnail, which shows the old pixels. `is_turned`: rows have
        become columns."""
        place = dict(self._entries(self._first)).get(_ORIENTATION)
        if place is not None:
            self._write_number(place, 1)
        if is_turned:
            self._exchange(self._first, _IN_PAIRS)
            if below := self._number(self._first, _EXIF_DIRECTORY):
                self._exchange(below, _IN_PAIRS_BELOW)
        self._remove_thumbnail()
        return _PREFIX + bytes(self._data)

    def enlarged(self, factor: int) -> bytes:
        """The block of an image that has `factor` times as many pixels a side."""
        self._grow(self._first, _GROWING, factor)
        below = self._number(self._first, _EXIF_DIRECTORY)
        if below:
            self._grow(below, _GROWING_BELOW, factor)
        return _PREFIX + bytes(self._data)

    def _exchange(self, directory: int, pairs: tuple[tuple[int, int], ...]) -> None:
        """Two tags take each other's values, types and all; one that is alone stays."""
        places = dict(self._entries(directory))
        for pair in pairs:
            if places.keys() >= set(pair):
                a, b = (slice(places[tag] + 2, places[tag] + 12) for tag in pair)
                self._data[a], self._data[b] = self._data[b], self._data[a]

    def _grow(self, directory: int, tags: tuple[int, ...], factor: int) -> None:
        for tag, place in list(self._entries(directory)):
            kind, value = self._unpack("H", place + 2), self._number(directory, tag)
            if tag in tags and value is not None and self._unpack("I", place + 4) == 1:
                # As a LONG: the four bytes of the entry hold it, and it may no longer fit a SHORT.
                struct.pack_into(self._order + "H", self._data, place + 2, 4)
                struct.pack_into(self._order + "I", self._data, place + 8, min(factor * value, 2**32 - 1))
            elif tag in tags and kind == 5:
                at = self._unpack("I", place + 8)
                above, below = struct.unpack_from(self._order + "II", self._data, at)
                if factor * above < 2**32:
                    struct.pack_into(self._order + "I", self._data, at, factor * above)
                elif below % factor == 0:
                    struct.pack_into(self._order + "I", self._data, at + 4, below // factor)

    def _remove_thumbnail(self) -> None:
        link = self._first + 2 + 12 * self._unpack("H", self._first)
        second = self._unpack("I", link) if link + 4 <= len(self._data) else 0
        if not second:
            return
        struct.pack_into(self._order + "I", self._data, link, 0)
        try:
            self._erase(second)
        except (ValueError, struct.error):  # it cannot be reached any more
            return

    def _erase(self, second: int) -> None:
        """Zeros the picture and the directory of a thumbnail; what is at the end of the block is cut off."""
        size = 2 + 12 * self._unpack("H", second) + 4
        parts = [(second, size)]
        for tags in ((_THUMBNAIL, _THUMBNAIL_BYTES), (_STRIPS, _STRIP_BYTES)):
            start, length = (self._number(second, tag) for tag in tags)
            if start and length:
                parts.append((start, length))
        for start, length in sorted(parts, reverse=True):
            stop = min(start + length, len(self._data))
            if start <= self._first + 12:  # it overlaps what stays
                continue
            if stop >= len(self._data) - 1:
                del self._data[start:]
            else:
                self._data[start:stop] = bytes(stop - start)

    def _entries(self, at: int) -> Iterator[tuple[int, int]]:
        """Tags of a directory, and where their entries are."""
        for number in range(self._unpack("H", at)):
            place = at + 2 + 12 * number
            yield self._unpack("H", place), place

    def _number(self, directory: int, tag: int) -> int | None:
        place = dict(self._entries(directory)).get(tag)
        kind = None if place is None else self._unpack("H", place + 2)
        return self._unpack({3: "H", 4: "I"}[kind], place + 8) if place is not None and kind in (3, 4) else None

    def _write_number(self, place: int, value: int) -> None:
        kind = self._unpack("H", place + 2)
        if kind in (3, 4):
            struct.pack_into(self._order + {3: "H", 4: "I"}[kind], self._data, place + 8, value)

    def _rational(self, place: int) -> float:
        if self._unpack("H", place + 2) != 5:
            return math.nan
        above, below = struct.unpack_from(self._order + "II", self._data, self._unpack("I", place + 8))
        return above / below if below else math.nan

    def _unpack(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(self._order + kind, self._data, at)[0])


def plausible(x: float, y: float) -> tuple[float, float] | None:
    """A resolution in pixels per inch; None unless both are plausible."""
    return (x, y) if all(math.isfinite(value) and 1 <= value <= 100_000 for value in (x, y)) else None


def xmp_orientation(xmp: bytes | None) -> int:
    """The orientation that XMP names, 1 to 8; 1 if there is no valid one."""
    found = _XMP_ORIENTATION.search(xmp or b"")
    return int(found[2]) if found and b"1" <= found[2] <= b"8" else 1


def upright_xmp(xmp: bytes) -> tuple[bytes, list[str]]:
    """XMP with orientation 1, and without what describes the old pixels or stands behind them; and what that was.

    In time linear in its length, whatever a stranger wrote there."""
    gone = []
    for name, word in _XMP_OF_OLD_PIXELS.items():
        xmp, attributes = re.subn(rb"\s(?:%s)=(?:\"[^\"]*\"|'[^']*')" % name, b"", xmp)
        xmp, elements = _without_elements(xmp, name)
        gone += [word] if word and attributes + elements else []
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp), gone


def _without_elements(xmp: bytes, name: bytes) -> tuple[bytes, int]:
    """XMP without the elements of such a name, and how many they were."""
    ends: dict[bytes, list[int]] = {}
    for closing in re.finditer(rb"</(%s)\s*>" % name, xmp):
        ends.setdefault(closing[1], []).append(closing.end())
    kept, at, count = [], 0, 0
    for opening in re.finditer(rb"<(%s)\b(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*>" % name, xmp):
        if opening.start() < at:  # in one that is gone
            continue
        end = opening.end()
        if not opening[0].endswith(b"/>"):
            own = ends.get(opening[1], [])
            place = bisect_right(own, end)
            if place == len(own):
                continue
            end = own[place]
        kept.append(xmp[at : opening.start()])
        at, count = end, count + 1
    return b"".join([*kept, xmp[at:]]), count
