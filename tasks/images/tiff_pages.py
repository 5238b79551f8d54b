"""Splits a TIFF into one file per page. Strips and tiles are copied byte for byte, so no pixel is encoded again."""

from __future__ import annotations

import struct
from itertools import islice

from tasks.images.tiff_directories import BLOCKS, OLD_JPEG, SUBIFDS, Directory, Tag, Tiff, contents
from tasks.images.tiff_reader import read_tiff

MAX_PAGES = 10_000
_POINTERS = {SUBIFDS, 40965}  # the latter is Interoperability's: directories that are not copied
_EXIF = (34665, 34853)  # Exif and GPS: directories that are


def split_pages(data: bytes | None) -> list[bytes | None]:
    """Each page of a multi-page TIFF, complete with its tags (bit depth, profile, resolution).

    Anything else is returned as it is: other formats, a TIFF with one page besides thumbnails and masks, and one that
    is broken somewhere.
    """
    if data is None or data[:2] not in (b"II", b"MM"):
        return [data]
    try:
        tiff = Tiff(data)
        count = sum(1 for _ in islice(tiff.chain(), MAX_PAGES + 1))  # raises where the list is broken
        found = contents(tiff := Tiff(data), MAX_PAGES).pages
        if len(found) < 2 or count > MAX_PAGES:
            return [data]
        pages = [_file_of(tiff, page) for page in found]
        for page in pages:
            read_tiff(page)
        return list(pages)
    except Exception:  # garbage can raise anything, on any line
        return [data]


def _file_of(tiff: Tiff, page: Directory) -> bytes:
    """A TIFF with only this page."""
    if OLD_JPEG[0] in page.tags:
        raise ValueError("expected image data in strips or tiles")
    starts, lengths = next(pair for pair in BLOCKS if pair[0] in page.tags)
    places = zip(tiff.numbers(page.tags[starts]), tiff.numbers(page.tags[lengths]), strict=True)
    blocks = [tiff.slice(start, length) for start, length in places]
    kept = {tag: value for tag, value in page.tags.items() if tag not in _POINTERS}
    below = {tag: tiff.at(tiff.numbers(kept[tag])[0]).tags for tag in _EXIF if tag in kept}
    tiff.spend(
        sum(map(len, blocks)) + sum(len(value[2]) for tags in (kept, *below.values()) for value in tags.values())
    )
    first = 2 * tiff.word
    kept |= {starts: _offsets(tiff, blocks, 0)} | {tag: _pointer(tiff, 0) for tag in below}
    at = first + len(tiff.directory(kept, first))  # where what comes next starts depends on the sizes alone
    parts = []
    for tag, tags in below.items():
        kept[tag] = _pointer(tiff, at)
        parts.append(tiff.directory({t: value for t, value in tags.items() if t not in _POINTERS}, at))
        at += len(parts[-1])
    kept[starts] = _offsets(tiff, blocks, at)
    return b"".join([tiff.header(first), tiff.directory(kept, first), *parts, *blocks])


def _pointer(tiff: Tiff, at: int) -> Tag:
    return (16 if tiff.big else 4, 1, memoryview(tiff.pack(tiff.offset, at)))


def _offsets(tiff: Tiff, blocks: list[memoryview], start: int) -> Tag:
    offsets = []
    for block in blocks:
        offsets.append(start)
        start += len(block)
    values = struct.pack(f"{tiff.order}{len(offsets)}{tiff.offset}", *offsets)
    return (16 if tiff.big else 4, len(offsets), memoryview(values))
