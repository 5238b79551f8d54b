"""Writes new pixels into a PNG: its depth and channels, and every chunk that is not about how pixels are stored."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from tasks.export import xmp
from tasks.export.canvas import Canvas
from tasks.export.larger import larger_phys
from tasks.export.notes import Notes
from tasks.export.thumbnails import without_exif_thumbnail
from tasks.images.enlarged import enlarged_exif, enlarged_xmp
from tasks.images.sixteen_bit import deep_png

Chunk = tuple[bytes, bytes]
"""Type and content."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP, _EXIF = b"XML:com.adobe.xmp\0", b"Exif\0\0"
_LEVEL = 6  # zlib's
_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_OF_THE_COLOUR_TYPE = {b"tRNS", b"bKGD", b"hIST", b"sBIT"}  # valid only with the one they were made for
_NO_XMP_FLAGS = b"\0\0\0\0"  # iTXt: not compressed, no language, no translated keyword


def write_png(original: bytes, canvas: Canvas, event: xmp.Event, notes: Notes) -> bytes:
    """The original with the canvas for pixels, and marked. A file of another format gives its pixels only."""
    pixels = list(_chunks(_encoded(canvas)))
    kept = list(_chunks(original)) if original.startswith(_SIGNATURE) else []
    if [content[8:10] for kind, content in kept if kind == b"IHDR"] != [pixels[0][1][8:10]]:  # depth and colour type
        kept = [(kind, content) for kind, content in kept if kind not in _OF_THE_COLOUR_TYPE]
    elif b"tRNS" in dict(kept) and b"tRNS" not in dict(pixels):
        kept = [(kind, content) for kind, content in kept if kind != b"tRNS" or canvas.mode in ("L", "RGB")]
    packet = next((body for kind, content in kept if (body := _packet(kind, content)) is not None), None)
    packet = packet and enlarged_xmp(packet, canvas.factor)
    text = (b"iTXt", _XMP + _NO_XMP_FLAGS + xmp.mark(packet, event, notes))
    others = ((kind, content) for kind, content in kept if _packet(kind, content) is None)
    before, after = _around_pixels(_larger(others, canvas.factor))
    colours = [chunk for chunk in pixels if chunk[0] in (b"PLTE", b"IDAT")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [pixels[0], *before, text, *colours, *after, (b"IEND", b"")]
    )


def _encoded(canvas: Canvas) -> bytes:
    if canvas.is_deep:
        deep = canvas.samples[..., 0] if canvas.mode == "L" else canvas.samples
        same = np.broadcast_to(np.uint8(0), (*deep.shape[:2], 3))  # nothing that differs is to be merged in
        return deep_png(deep, same, same)
    canvas.image.save(file := io.BytesIO(), "PNG", compress_level=_LEVEL)
    return file.getvalue()


def _chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG that decodes, up to its end."""
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            return


def _around_pixels(chunks: Iterable[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """The chunks before and behind the pixels, without those, and EXIF without its thumbnail."""
    before: list[Chunk] = []
    after: list[Chunk] = []
    side = before
    for kind, content in chunks:
        if kind == b"IDAT":
            side = after
        if kind not in _PIXELS:
            side.append((kind, without_exif_thumbnail(content) if kind == b"eXIf" else content))
    return before, after


def _larger(chunks: Iterable[Chunk], factor: int) -> Iterator[Chunk]:
    """The chunks with the sizes and resolutions of the enlarged image."""
    for kind, content in chunks:
        if kind == b"eXIf":
            yield kind, enlarged_exif(content, factor).removeprefix(_EXIF)
        else:
            yield kind, larger_phys(content, factor) if kind == b"pHYs" else content


def _packet(kind: bytes, content: bytes) -> bytes | None:
    """The XMP packet in a chunk."""
    if kind != b"iTXt" or not content.startswith(_XMP):
        return None
    flag, method = content[len(_XMP) : len(_XMP) + 2].ljust(2, b"\1")
    text = content[len(_XMP) + 2 :].split(b"\0", 2)[-1]
    if not flag:
        return text
    try:
        unpack = zlib.decompressobj()
        return unpack.decompress(text, 16 * 2**20) if method == 0 else b""
    except zlib.error:
        return b""  # does not read, so it is replaced
