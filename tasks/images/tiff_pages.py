"""Splits a TIFF into one file per page. Strips and tiles are copied byte for byte, so no pixel is encoded again."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image

from tasks.images.codec import MAX_PIXELS

MAX_PAGES = 10_000

# Field type -> bytes of a value: TIFF 6.0, section 2; 13 is an IFD; 16 to 18 are BigTIFF's 64-bit types.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SUBFILE = 254  # NewSubfileType
_NOT_A_PAGE = 1 | 4  # its bits for a smaller version of another page and for a transparency mask
_BLOCKS = ((273, 279), (324, 325))  # StripOffsets and StripByteCounts, or the same of tiles
_POINTERS = {330, 34665, 34853, 40965}  # SubIFDs, Exif, GPS, Interoperability: directories that are not copied
_OLD_JPEG = 513  # JPEGInterchangeFormat of TIFF 6.0: its data is in neither strips nor tiles

Tag = tuple[int, int, memoryview]
"""Field type, number of values, and the values as stored."""


def split_pages(data: bytes | None) -> list[bytes | None]:
    """Each page of a multi-page TIFF, complete with its tags (bit depth, profile, resolution).

    Anything else is returned as it is: other formats, a TIFF with one page besides thumbnails and masks, and one that
    is broken somewhere.
    """
    if data is None or data[:2] not in (b"II", b"MM"):
        return [data]
    try:
        tiff = _Tiff(data)
        pages: list[bytes | None] = []
        for tags in tiff.directories():
            if not tiff.numbers(tags.get(_SUBFILE))[0] & _NOT_A_PAGE:
                pages.append(tiff.page(tags))
        return pages if len(pages) > 1 and all(map(_decodes, pages)) else [data]
    except Exception:  # garbage can raise anything, on any line
        return [data]


def starts_with_page(data: bytes) -> bool:
    """Whether the first directory of a TIFF is a page: readers of a single image take that one, whatever it is."""
    tiff = _Tiff(data)
    return not tiff.numbers(next(tiff.directories()).get(_SUBFILE))[0] & _NOT_A_PAGE


class _Tiff:
    """The directories of a classic TIFF or a BigTIFF, in either byte order."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._order = "<" if data[:2] == b"II" else ">"
        (version,) = struct.unpack_from(self._order + "H", data, 2)
        if version not in (42, 43):  # 43 is BigTIFF, with offsets of 64 bits
            raise ValueError(f"expected a TIFF, got version {version}")
        self._big = version == 43
        self._offset, self._count = ("Q", "Q") if self._big else ("I", "H")
        self._entry = self._order + ("HHQ8s" if self._big else "HHI4s")
        self._word = 8 if self._big else 4  # the header is two of them, the second the first directory's offset
        self._budget = 2 * len(data)

    def directories(self) -> Iterator[dict[int, Tag]]:
        """The tags of each page. ValueError if the list is circular or too long."""
        seen: set[int] = set()
        at = self._unpack(self._offset, self._word)
        while at:
            if at in seen or len(seen) == MAX_PAGES:
                raise ValueError("expected a list of pages with an end")
            seen.add(at)
            count = self._unpack(self._count, at)
            first, step = at + struct.calcsize(self._order + self._count), struct.calcsize(self._entry)
            self._spend(count * step)
            tags = (self._tag(first + i * step) for i in range(count))
            yield {tag: value for tag, value in tags if value[0] in _SIZES}
            at = self._unpack(self._offset, first + count * step)

    def numbers(self, tag: Tag | None) -> tuple[int, ...]:
        """The values of an integer tag; 0 if there is no such tag."""
        if tag is None:
            return (0,)
        letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}[tag[0]]
        return struct.unpack(f"{self._order}{tag[1]}{letter}", tag[2])

    def page(self, tags: dict[int, Tag]) -> bytes:
        """A TIFF with only this page."""
        if _OLD_JPEG in tags:
            raise ValueError("expected image data in strips or tiles")
        starts, lengths = next(pair for pair in _BLOCKS if pair[0] in tags)
        places = zip(self.numbers(tags[starts]), self.numbers(tags[lengths]), strict=True)
        blocks = [self._slice(start, length) for start, length in places]
        kept = {tag: value for tag, value in tags.items() if tag not in _POINTERS}
        self._spend(sum(map(len, blocks)) + sum(len(value[2]) for value in kept.values()))
        kept[starts] = self._offsets(blocks, 0)  # with offsets of the right size: where the data starts depends on it
        data_start = len(self._directory(kept))
        kept[starts] = self._offsets(blocks, data_start)
        return b"".join([self._directory(kept), *blocks])

    def _directory(self, tags: dict[int, Tag]) -> bytes:
        """A header, one directory, and the values that do not fit into its entries."""
        start = 2 * self._word
        size = struct.calcsize(self._order + self._count + self._offset)
        size += len(tags) * struct.calcsize(self._entry)
        entries, values = [], b""
        for tag, (kind, count, value) in sorted(tags.items()):
            field = bytes(value)
            if len(value) > self._word:
                field = self._pack(self._offset, start + size + len(values))
                values += bytes(value) + bytes(len(value) % 2)  # values start at even offsets
            entries.append(struct.pack(self._entry, tag, kind, count, field))
        header = bytes(self._data[: self._word]) + self._pack(self._offset, start)
        return b"".join([header, self._pack(self._count, len(tags)), *entries, self._pack(self._offset, 0), values])

    def _offsets(self, blocks: list[memoryview], start: int) -> Tag:
        offsets = []
        for block in blocks:
            offsets.append(start)
            start += len(block)
        values = struct.pack(f"{self._order}{len(offsets)}{self._offset}", *offsets)
        return (16 if self._big else 4, len(offsets), memoryview(values))

    def _tag(self, at: int) -> tuple[int, Tag]:
        tag, kind, count, field = struct.unpack_from(self._entry, self._data, at)
        length = count * _SIZES.get(kind, 0)
        if length <= len(field):
            return tag, (kind, count, memoryview(field)[:length])
        (start,) = struct.unpack(self._order + self._offset, field)
        return tag, (kind, count, self._slice(start, length))

    def _slice(self, start: int, length: int) -> memoryview:
        found = self._data[start : start + length]
        if len(found) != length:
            raise ValueError(f"expected {length} bytes at {start}, found {len(found)}")
        return found

    def _spend(self, size: int) -> None:
        """Bounds what is copied: pages that share their bytes could make a file a thousand times as large."""
        self._budget -= size
        if self._budget < 0:
            raise ValueError("expected pages with bytes of their own")

    def _unpack(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(self._order + kind, self._data, at)[0])

    def _pack(self, kind: str, value: int) -> bytes:
        return struct.pack(self._order + kind, value)


def _decodes(page: bytes | None) -> bool:
    """True, or whatever Pillow raises: `split_pages` then keeps the file whole."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with Image.open(io.BytesIO(page or b""), formats=["TIFF"]) as image:
        image.load()
    return True
