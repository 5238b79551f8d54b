"""Writes new pixels into pages of a TIFF. Everything else of the file is copied: the strips or tiles of all other pages
byte for byte, and every tag (EXIF, GPS, XMP, IPTC, Photoshop, ICC, resolution) of the changed ones.

The file is written anew, in its own byte order, so that no old pixel stays behind in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bfr_models.errors import RowError
from tasks.export import xmp
from tasks.export.canvas import Canvas
from tasks.export.larger import larger_tags
from tasks.export.notes import Notes
from tasks.export.strips import Stored, Strips, encoded_strips
from tasks.export.thumbnails import without_photoshop_thumbnail
from tasks.images.enlarged import enlarged_xmp
from tasks.images.tiff_directories import Tiff as Decoded
from tasks.images.tiff_directories import contents
from tasks.images.tiff_pages import MAX_PAGES

# Field type -> bytes of a value: TIFF 6.0, section 2; 13 is an IFD; 16 to 18 are BigTIFF's 64-bit types.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BYTE, _SHORT, _LONG, _LONG8 = 1, 3, 4, 16
_BLOCKS = {273: 279, 324: 325, 513: 514}  # offsets of strips, of tiles, of a JPEG -> their lengths
_DIRECTORIES = {330, 34665, 34853, 40965}  # SubIFDs, EXIF, GPS, Interoperability
_SUB_IFDS, _XMP, _PHOTOSHOP, _COMPRESSION, _PREDICTOR, _ROWS = 330, 700, 34377, 259, 317, 278
_SAMPLE_FORMAT, _EXIF = 339, 34665
_OLD_JPEG = range(512, 522)  # tags of TIFF 6.0's first attempt at JPEG
_LAYOUT = {  # what describes how pixels are stored
    256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 292, 293, 317, 320, 322, 323, 324,
    325, 332, 333, 334, 336, 338, 339, 340, 341, 347, 529, 530, 531, 532, *_OLD_JPEG,
}  # fmt: skip
_MAX_DIRECTORIES, _MAX_DEPTH = 20_000, 4


@dataclass
class Directory:
    """The tags of an IFD: type and values; what they point to is held beside them."""

    tags: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    blocks: dict[int, list[bytes]] = field(default_factory=dict)  # by the tag of their offsets
    inner: dict[int, list[Directory]] = field(default_factory=dict)  # by the tag that points to them
    offset: int = 0  # where it stood

    def number(self, order: str, tag: int, default: int = 0) -> int:
        """The first value of an integer tag."""
        kind, values = self.tags.get(tag, (_BYTE, bytes([default])))
        return int(struct.unpack_from(order + _LETTERS.get(kind, "B"), values)[0])


@dataclass
class Tiff:
    """A classic TIFF or a BigTIFF; `order` is struct's letter for its byte order."""

    order: str
    is_big: bool
    directories: list[Directory]

    pages: list[Directory]
    """The images of equal rank, as the decoder sees them: some of `directories`, or below one of these."""


def write_tiff(files: Sequence[bytes], canvases: Mapping[int, Canvas], event: xmp.Event, notes: Notes) -> bytes:
    """The TIFF that these files are the pages of (or one file with all of them), with the canvases for pixels of the
    pages that they are numbered by, which are marked. RowError for a file that cannot be taken apart."""
    try:
        tiff = read_tiff(files[0])
        for file in files[1:] if len(tiff.pages) < len(files) else ():
            page = read_tiff(file)
            if page.order != tiff.order:
                raise ValueError("pages of different byte orders")
            tiff.directories += page.directories
            tiff.pages += page.pages
            tiff.is_big |= page.is_big
        _put(tiff, canvases, event, notes)
        return _written(tiff)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise RowError("undecodable", f"expected a TIFF that can be taken apart, found: {error}") from error


def _put(tiff: Tiff, canvases: Mapping[int, Canvas], event: xmp.Event, notes: Notes) -> None:
    """Replaces pages, and removes the smaller versions that follow them."""
    for number, canvas in canvases.items():
        directory = tiff.pages[number]
        strips = encoded_strips(canvas, tiff.order, _stored(directory, tiff.order), notes)
        _repaint(directory, tiff.order, strips, canvas.factor)
        packet = directory.tags.get(_XMP)
        before = packet and enlarged_xmp(packet[1], canvas.factor)
        directory.tags[_XMP] = (_BYTE, xmp.mark(before, event, notes))
    pages, changed = set(map(id, tiff.pages)), {id(tiff.pages[number]) for number in canvases}
    kept, of = [], 0
    for directory in tiff.directories:
        if changed.intersection(map(id, directory.inner.get(_SUB_IFDS, ()))):
            notes.add("the image is below a smaller version of its old pixels, which stays")
        of = id(directory) if id(directory) in pages else of
        if id(directory) == of or of not in changed:
            kept.append(directory)
    tiff.directories = kept


def _stored(directory: Directory, order: str) -> Stored:
    compression, predictor = (directory.number(order, tag, default=1) for tag in (_COMPRESSION, _PREDICTOR))
    return Stored(compression, predictor, directory.number(order, _ROWS) if 273 in directory.blocks else 0)


def _repaint(directory: Directory, order: str, strips: Strips, factor: int) -> None:
    larger_tags(directory.tags, order, factor)
    for below in directory.inner.get(_EXIF, ()):
        larger_tags(below.tags, order, factor, is_exif=True)
    dropped = [tag for tag in _LAYOUT if directory.tags.pop(tag, None)]
    if _SAMPLE_FORMAT in dropped:
        strips.tags[_SAMPLE_FORMAT] = [1] * len(strips.tags[258])  # unsigned numbers
    directory.blocks = {273: strips.blocks}
    directory.inner.pop(_SUB_IFDS, None)  # smaller versions of the old pixels
    for tag, numbers in strips.tags.items():
        directory.tags[tag] = (_SHORT if max(numbers) < 65536 else _LONG, _packed(order, numbers))
    if strips.jpeg_tables:
        directory.tags[347] = (7, strips.jpeg_tables)
    if _PHOTOSHOP in directory.tags:
        kind, values = directory.tags[_PHOTOSHOP]
        directory.tags[_PHOTOSHOP] = (kind, without_photoshop_thumbnail(values, factor))


def _packed(order: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f"{order}{len(numbers)}{'H' if max(numbers) < 65536 else 'I'}", *numbers)


def read_tiff(data: bytes) -> Tiff:
    """All directories of a TIFF. ValueError for one that is broken, circular, or whose parts share their bytes."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    version = struct.unpack_from(f"{order}H", data, 2)[0]
    if version not in (42, 43):
        raise ValueError(f"version {version}")
    return _Reader(data, order, is_big=version == 43).read()


def count_pages(data: bytes) -> int:
    """How many pages a TIFF has; 0 for what is none, or is broken."""
    try:
        return len(read_tiff(data).pages)
    except (ValueError, KeyError, struct.error):
        return 0


class _Reader:
    def __init__(self, data: bytes, order: str, *, is_big: bool) -> None:
        self._data, self._order, self._is_big = data, order, is_big
        self._word, self._count = ("Q", "Q") if is_big else ("I", "H")
        self._seen = set[int]()
        self._budget = 2 * len(data)  # what is copied: parts may not share their bytes many times over

    def read(self) -> Tiff:
        at, directories = self._number(self._word, 8 if self._is_big else 4), []
        while at:
            directory, at = self._directory(at, 0)
            directories.append(directory)
        places = [page.offset for page in contents(Decoded(self._data), MAX_PAGES).pages]
        known = {one.offset: one for top in directories for one in (top, *top.inner.get(_SUB_IFDS, ()))}
        return Tiff(self._order, self._is_big, directories, [known[place] for place in places])

    def _directory(self, at: int, depth: int) -> tuple[Directory, int]:
        """The directory at an offset, and the offset of the next one."""
        if at in self._seen or len(self._seen) >= _MAX_DIRECTORIES or depth > _MAX_DEPTH:
            raise ValueError("directories without an end")
        self._seen.add(at)
        found, count = Directory(offset=at), self._number(self._count, at)
        entry = f"{self._order}HH{self._word}"
        first, step = at + struct.calcsize(self._order + self._count), 20 if self._is_big else 12
        for i in range(count):
            place = first + i * step
            tag, kind, number = struct.unpack_from(entry, self._data, place)
            if kind in _SIZES:
                found.tags[tag] = (kind, self._values(place + struct.calcsize(entry), number * _SIZES[kind]))
        self._follow(found, depth)
        return found, self._number(self._word, first + count * step)

    def _follow(self, found: Directory, depth: int) -> None:
        for tag in _DIRECTORIES & found.tags.keys():
            offsets = self._numbers(found.tags.pop(tag))
            found.inner[tag] = [self._directory(offset, depth + 1)[0] for offset in offsets if offset]
        for starts, lengths in _BLOCKS.items():
            if starts in found.tags and lengths in found.tags:
                places = zip(self._numbers(found.tags.pop(starts)), self._numbers(found.tags.pop(lengths)), strict=True)
                found.blocks[starts] = [self._slice(start, length) for start, length in places]

    def _numbers(self, tag: tuple[int, bytes]) -> tuple[int, ...]:
        kind, values = tag
        return struct.unpack(f"{self._order}{len(values) // _SIZES[kind]}{_LETTERS[kind]}", values)

    def _values(self, place: int, length: int) -> bytes:
        inline = 8 if self._is_big else 4
        return self._slice(place if length <= inline else self._number(self._word, place), length)

    def _slice(self, start: int, length: int) -> bytes:
        self._budget -= length
        found = self._data[start : start + length]
        if len(found) != length or self._budget < 0:
            raise ValueError(f"{length} bytes at {start} that are not there, or are shared")
        return found

    def _number(self, letter: str, at: int) -> int:
        return int(struct.unpack_from(self._order + letter, self._data, at)[0])


def _written(tiff: Tiff) -> bytes:
    """The file. ValueError above 4 GiB for a classic TIFF."""
    out, order, word = bytearray(), tiff.order, "Q" if tiff.is_big else "I"
    out += b"II" if order == "<" else b"MM"
    out += struct.pack(f"{order}HHH", 43, 8, 0) if tiff.is_big else struct.pack(f"{order}H", 42)
    link = len(out)
    out += bytes(struct.calcsize(word))
    for directory in tiff.directories:
        at, after = _write_directory(out, directory, order, word)
        struct.pack_into(order + word, out, link, at)
        link = after
    return bytes(out)


def _write_directory(out: bytearray, directory: Directory, order: str, word: str) -> tuple[int, int]:
    """Appends a directory behind all that it points to; its offset, and that of its link to the next one."""
    offset_kind = _LONG8 if word == "Q" else _LONG
    tags = dict(directory.tags)

    def point(tag: int, offsets: list[int]) -> None:
        tags[tag] = (offset_kind, struct.pack(f"{order}{len(offsets)}{word}", *offsets))

    for tag, blocks in directory.blocks.items():
        point(tag, [_append(out, block) for block in blocks])
        lengths = [len(block) for block in blocks]
        tags[_BLOCKS[tag]] = (offset_kind, struct.pack(f"{order}{len(lengths)}{word}", *lengths))
    for tag, inner in directory.inner.items():
        if inner:
            point(tag, [_write_directory(out, one, order, word)[0] for one in inner])
    inline = struct.calcsize(word)
    entries = []
    for tag, (kind, values) in sorted(tags.items()):
        held = values if len(values) <= inline else struct.pack(order + word, _append(out, values))
        entries.append(
            struct.pack(f"{order}HH{word}", tag, kind, len(values) // _SIZES[kind]) + held.ljust(inline, b"\0")
        )
    count = struct.pack(order + ("Q" if word == "Q" else "H"), len(entries))
    at = _append(out, b"".join([count, *entries]))
    link = len(out)
    out += bytes(inline)
    return at, link


def _append(out: bytearray, data: bytes) -> int:
    """Appends at an even offset, which it returns."""
    out += bytes(len(out) % 2)
    at = len(out)
    out += data
    return at
