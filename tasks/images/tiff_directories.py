"""The directories of a TIFF: which images it holds, and which of them is *the* image."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.images.limits import MAX_FRAMES

# Field type -> bytes of a value: TIFF 6.0, section 2; 13 is an IFD; 16 to 18 are BigTIFF's 64-bit types.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
WIDTH, HEIGHT = 256, 257
SUBFILE, OLD_SUBFILE = 254, 255  # NewSubfileType, and what stood for it before TIFF 6.0
SUBIFDS = 330
REDUCED, MASK = 1, 4  # bits of NewSubfileType: a smaller version of another image; a transparency mask
TILE = (322, 323)
_MAX_BLOCK_PIXELS = 2**26  # of one tile
BLOCKS = ((273, 279), (324, 325))  # StripOffsets and StripByteCounts, or the same of tiles
OLD_JPEG = (513, 514)  # JPEGInterchangeFormat of TIFF 6.0 and its length: data in neither strips nor tiles
_MAX_SUBIFDS = 64
_LEAST_BUDGET = 2**16  # bytes: what tiny files may copy, whose tags are larger than their pixels
_PREVIEW = 640  # px of the longer side: what cameras and scanners write as a preview is not larger

Tag = tuple[int, int, memoryview]
"""Field type, number of values, and the values as stored."""
Tags = dict[int, Tag]


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF."""

    tags: Tags
    width: int
    height: int
    flags: int
    """NewSubfileType."""
    offset: int = 0
    """Where it stands in the file."""

    @property
    def is_page(self) -> bool:
        """Whether it is an image of its own, by its flags."""
        return not self.flags & (REDUCED | MASK)


@dataclass(frozen=True)
class Contents:
    """What a TIFF holds."""

    image: Directory
    """The image that a viewer shows: the first page, at its full size."""
    pages: list[Directory]
    """All images of equal rank, `image` among them."""
    others: list[str] = field(default_factory=list)
    """Previews, masks and the like, in a few words each."""


class Tiff:
    """The directories of a classic TIFF or a BigTIFF, in either byte order."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.order = "<" if data[:2] == b"II" else ">"
        (version,) = struct.unpack_from(self.order + "H", data, 2)
        if version not in (42, 43):  # 43 is BigTIFF, with offsets of 64 bits
            raise ValueError(f"expected a TIFF, got version {version}")
        self.big = version == 43
        self.offset, self.count = ("Q", "Q") if self.big else ("I", "H")
        self.entry = self.order + ("HHQ8s" if self.big else "HHI4s")
        self.word = 8 if self.big else 4  # the header is two of them, the second the first directory's offset
        self._budget = max(2 * len(data), _LEAST_BUDGET)

    @property
    def first(self) -> int:
        """Where the first directory stands."""
        return self._unpack(self.offset, self.word)

    def chain(self) -> Iterator[Directory]:
        """The directories that follow each other. ValueError if the list is circular or broken."""
        seen: set[int] = set()
        at = self.first
        while at:
            if at in seen:
                raise ValueError("expected a list of pages with an end")
            seen.add(at)
            found, at = self._directory_at(at)
            yield found

    def at(self, offset: int) -> Directory:
        """The directory that stands somewhere."""
        return self._directory_at(offset)[0]

    def below(self, directory: Directory) -> Iterator[Directory]:
        """The directories that one names as its own: full images, smaller versions."""
        for at in self.numbers(directory.tags.get(SUBIFDS))[:_MAX_SUBIFDS]:
            if at:
                yield self._directory_at(at)[0]

    def numbers(self, tag: Tag | None) -> tuple[int, ...]:
        """The values of an integer tag; 0 if there is no such tag. ValueError for one of another type."""
        if tag is None or not tag[1]:
            return (0,)
        if tag[0] not in _LETTERS:
            raise ValueError(f"expected a tag of whole numbers, found type {tag[0]}")
        return struct.unpack(f"{self.order}{tag[1]}{_LETTERS[tag[0]]}", tag[2])

    def slice(self, start: int, length: int) -> memoryview:
        """Some bytes of the file. ValueError if they are not all there."""
        found = self.data[start : start + length]
        if len(found) != length:
            raise ValueError(f"expected {length} bytes at {start}, found {len(found)}")
        return found

    def spend(self, size: int) -> None:
        """Bounds what is copied: pages that share their bytes could make a file a thousand times as large."""
        self._budget -= size
        if self._budget < 0:
            raise ValueError("expected pages with bytes of their own")

    def directory(self, tags: Tags, at: int) -> bytes:
        """A directory that stands at `at`, and behind it the values that do not fit into its entries."""
        return directory_bytes(tags, at, self.order, big=self.big)

    def header(self, first: int) -> bytes:
        """A file's first bytes, with its first directory at `first`."""
        return bytes(self.data[: self.word]) + self.pack(self.offset, first)

    def pack(self, kind: str, value: int) -> bytes:
        return struct.pack(self.order + kind, value)

    def _directory_at(self, at: int) -> tuple[Directory, int]:
        """A directory, and where the next one stands."""
        count = self._unpack(self.count, at)
        first, step = at + struct.calcsize(self.order + self.count), struct.calcsize(self.entry)
        self.spend(count * step)
        every = (self._tag(first + i * step) for i in range(count))
        tags = {tag: value for tag, value in every if value[0] in _SIZES}
        width, height = (self.numbers(tags.get(tag))[0] for tag in (WIDTH, HEIGHT))
        flags = self.numbers(tags.get(SUBFILE))[0]
        if not flags and self.numbers(tags.get(OLD_SUBFILE))[0] == 2:
            flags = REDUCED
        link = first + count * step
        following = self._unpack(self.offset, link) if link + struct.calcsize(self.offset) <= len(self.data) else 0
        return Directory(tags, width, height, flags, at), following

    def _tag(self, at: int) -> tuple[int, Tag]:
        tag, kind, count, value = struct.unpack_from(self.entry, self.data, at)
        length = count * _SIZES.get(kind, 0)
        if length <= len(value):
            return tag, (kind, count, memoryview(value)[:length])
        (start,) = struct.unpack(self.order + self.offset, value)
        return tag, (kind, count, self.data[start : start + length])  # short, if it leads out of the file

    def _unpack(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(self.order + kind, self.data, at)[0])


def directory_bytes(tags: Tags, at: int, order: str, *, big: bool = False) -> bytes:
    """A directory that stands at `at` in a classic TIFF or a BigTIFF, and behind it the values that do not fit into its
    entries."""
    offset, count, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    size = struct.calcsize(order + count + offset) + len(tags) * struct.calcsize(order + entry)
    entries, values = [], b""
    for tag, (kind, number, value) in sorted(tags.items()):
        stored = bytes(value)
        if len(stored) > (8 if big else 4):
            values += stored + bytes(len(stored) % 2)  # values start at even offsets
            stored = struct.pack(order + offset, at + size + len(values) - len(value) - len(value) % 2)
        entries.append(struct.pack(order + entry, tag, kind, number, stored))
    return b"".join([struct.pack(order + count, len(tags)), *entries, struct.pack(order + offset, 0), values])


def contents(tiff: Tiff, limit: int = MAX_FRAMES) -> Contents:
    """What a TIFF holds, up to `limit` images, and which of them is the one to look at.

    Flags come first, then sizes: a small version of a larger image is never taken for it, whether or not it says so.
    ValueError or struct.error if not even the first directory can be read; a list that breaks off later ends there.
    """
    chain = _readable(tiff.chain(), limit)
    below = [sub for directory in chain[:_MAX_SUBIFDS] for sub in _whole(tiff.below(directory))]
    pages = [directory for directory in chain if directory.is_page] or [d for d in below if d.is_page] or chain[:1]
    image = pages[0]
    for found in (*pages, *(d for d in below if d.is_page)):
        if _is_preview_of(image, found):
            image = found
    pages = [page for page in pages if not _is_preview_of(page, image)]
    if all(page is not image for page in pages):
        pages.insert(0, image)
    taken = set(map(id, pages))
    names = Counter(_name_of(directory, image) for directory in (*chain, *below) if id(directory) not in taken)
    return Contents(image, pages, [name if count == 1 else f"{name} x {count}" for name, count in names.items()])


def tile_fits(tiff: Tiff, image: Directory, least: int = _MAX_BLOCK_PIXELS) -> bool:
    """Whether the tiles of an image are not far larger than itself: a decoder makes room for a whole one. `least` is
    how many pixels one may have in any case."""
    if BLOCKS[1][0] not in image.tags:
        return True
    width, height = (tiff.numbers(image.tags.get(tag))[0] for tag in TILE)
    return 0 < width * height <= max(least, 4 * image.width * image.height)


def _readable(directories: Iterator[Directory], limit: int) -> list[Directory]:
    """The directories up to the first broken one. Raises if that is the very first."""
    found: list[Directory] = []
    try:
        for directory in directories:
            found.append(directory)
            if len(found) == limit:
                break
    except (ValueError, struct.error):
        if not found:
            raise
    return found


def _whole(directories: Iterator[Directory]) -> list[Directory]:
    """As `_readable`, of directories that need not be there."""
    try:
        return _readable(directories, _MAX_SUBIFDS)
    except (ValueError, struct.error):
        return []


def _is_preview_of(small: Directory, large: Directory) -> bool:
    """Whether one is a smaller version of the other, by their sizes: the same shape, a third as large at most."""
    if not small.width or not small.height or not large.width or not large.height:
        return False
    if max(small.width, small.height) > _PREVIEW or 3 * small.width > large.width or 3 * small.height > large.height:
        return False
    slack = max(large.width / small.width, large.height / small.height)  # a pixel of the small one
    return abs(small.width * large.height / small.height - large.width) <= 1.5 * slack


def _name_of(directory: Directory, image: Directory) -> str:
    if directory.flags & MASK:
        return "a transparency mask"
    if directory.flags & REDUCED or _is_preview_of(directory, image):
        return "a preview"
    return "another image"
