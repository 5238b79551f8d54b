"""The boxes of which AVIF, HEIF, JPEG 2000 and JPEG XL files consist (ISO/IEC 14496-12, 15444-1, 18181-2), and the bits
of JPEG XL's header."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from tasks.images.limits import MAX_SEGMENTS

_NCLX = re.compile(rb"colrnclx(.{6})", re.DOTALL)
_AV1C = re.compile(rb"av1C[\x81](.)(.)", re.DOTALL)
_SRGB = (1, 13)  # primaries and transfer of ITU-T H.273
_UNSAID = 2
_PRIMARIES = {1: 1, 9: 9, 11: 12}  # JPEG XL's numbers -> H.273's: sRGB, BT.2100, P3


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box. Ends where one is broken."""
    stop = len(data) if stop is None else stop
    for _ in range(MAX_SEGMENTS):
        if start + 8 > stop:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= stop:
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        end = stop if size == 0 else start + size
        if (size and size < head) or end > stop:
            return
        yield kind, start + head, end
        start = end


def coding_of(data: bytes) -> tuple[bytes, bytes] | None:
    """A PNG's chunk that says what an AVIF's or HEIF's levels mean (cICP); None for sRGB, and where nobody says."""
    if (found := _NCLX.search(data)) is None:
        return None
    primaries, transfer, _ = struct.unpack(">3H", found[1])
    return cicp(primaries, transfer)


def cicp(primaries: int, transfer: int) -> tuple[bytes, bytes] | None:
    """The same of two numbers of H.273."""
    known = _UNSAID not in (primaries, transfer) and max(primaries, transfer) < 256
    return (b"cICP", bytes([primaries, transfer, 0, 1])) if known and (primaries, transfer) != _SRGB else None


def av1_depth(data: bytes) -> int:
    """Bits of an AVIF: 8, 10 or 12."""
    found = _AV1C.search(data)
    flags = found[2][0] if found else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


class JxlHeader:
    """The start of a JPEG XL codestream (ISO/IEC 18181-1, annex D). ValueError if it is none."""

    def __init__(self, codestream: bytes) -> None:
        if codestream[:2] != b"\xff\x0a":
            raise ValueError("expected a JPEG XL codestream")
        self._bits, self._at = int.from_bytes(codestream[2:96], "little"), 0
        self.width, self.height = self._size()
        self.animated, self.depth, self.floats = False, 8, False
        self.coding: tuple[int, int] | None = _SRGB
        if self._take(1):  # all as usual
            return
        if self._take(1):
            self._take(3)  # the orientation, which the decoder applies
            if self._take(1):
                self._size()
            preview, self.animated = self._take(1), bool(self._take(1))
            if preview or self.animated:  # what follows is not needed to say what an image is
                self.depth, self.coding = 0, None
                return
        self.floats = bool(self._take(1))
        self.depth = (8, 10, 12)[kind] if (kind := self._take(2)) < 3 else 1 + self._take(6)

        self.coding = self._coding()

    def _coding(self) -> tuple[int, int] | None:
        """Primaries and transfer by ITU-T H.273; None where they are not among those, or cannot be told for certain."""
        self._take(1)
        extra = (0, 1, 2, 1)[kind := self._take(2)] + self._take((0, 0, 4, 12)[kind])
        if not all(self._take(1) for _ in range(min(extra, 2))) or extra > 1:  # a channel that is not plain alpha
            return None
        self._take(1)
        if self._take(1):  # the usual encoding
            return _SRGB
        if self._take(1):  # a profile
            return None
        space, white = self._name(), self._name()
        primaries = _PRIMARIES.get(1 if space else self._name())
        if space > 1 or white != 1 or primaries is None or self._take(1):
            return None
        return primaries, self._name()

    def _name(self) -> int:
        """An enumerated value of ITU-T H.273."""
        return (0, 1, 2, 18)[kind := self._take(2)] + self._take((0, 0, 4, 6)[kind])

    def _size(self) -> tuple[int, int]:
        small = self._take(1)
        height = 8 * (1 + self._take(5)) if small else self._number()
        ratio = self._take(3)
        if not ratio:
            return (8 * (1 + self._take(5)) if small else self._number()), height
        above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return height * above // below, height

    def _number(self) -> int:
        return 1 + self._take((9, 13, 18, 30)[self._take(2)])

    def _take(self, count: int) -> int:
        found = self._bits >> self._at & (1 << count) - 1
        self._at += count
        return found
