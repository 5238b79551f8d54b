"""Writes new pixels into a JPEG: its quantisation tables, subsampling and kind of scan, and all that is not pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from bfr_models.errors import RowError
from tasks.export import xmp
from tasks.export.canvas import Canvas
from tasks.export.larger import larger_jfif
from tasks.export.notes import Notes
from tasks.export.thumbnails import without_exif_thumbnail, without_photoshop_thumbnail
from tasks.images.enlarged import enlarged_exif, enlarged_xmp
from tasks.images.jpeg_segments import split_jpeg

Segment = tuple[int, bytes]
"""Marker and content."""

_EOI, _SOS, _APP0, _APP1, _APP2, _APP13, _APP14, _COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_EXIF, _XMP, _PHOTOSHOP, _MPF = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0", b"MPF\0"
_JFIF, _JFXX = b"JFIF\0", b"JFXX\0"
_MAX_CONTENT = 65533  # bytes: a segment's 16-bit length includes its own two bytes
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # all but those without a length: TEM, RST0-7, SOI
_TRANSFORM = 11  # the byte of Adobe's APP14 that says how colours are stored


def write_jpeg(original: bytes, canvas: Canvas, event: xmp.Event, notes: Notes) -> bytes:
    """The original with the canvas (L, YCbCr, RGB or CMYK, of 8 bits) for pixels, and marked."""
    kept, trailer = _metadata(original)
    if any(_is(segment, _APP2, _MPF) for segment in kept):
        kept, trailer = [segment for segment in kept if not _is(segment, _APP2, _MPF)], b""
        notes.add("the further images in the file (previews of the old pixels, or other views) are left out")
    encoded = _encoded(original, canvas, notes)
    made, _ = _metadata(encoded)
    adobe = [segment for segment in made if segment[0] == _APP14]  # says how the new pixels are stored
    kept = [one for one in kept if one[0] != _APP14 or (not adobe and one[1][_TRANSFORM : _TRANSFORM + 1] == b"\x01")]
    segments = [*_marked(list(_of_new_pixels(kept, canvas.factor)), canvas.factor, event, notes), *adobe]
    pixels = encoded[2 + sum(4 + len(content) for _, content in made) :]  # Pillow writes its metadata first
    return b"".join([b"\xff\xd8", *map(_packed, segments), pixels, trailer])


def _encoded(original: bytes, canvas: Canvas, notes: Notes) -> bytes:
    with Image.open(io.BytesIO(split_jpeg(original)[0]), formats=["JPEG"]) as image:
        assert isinstance(image, JpegImageFile)
        sampling = get_sampling(image)
        if canvas.mode == "YCbCr" and sampling < 0:
            notes.add("its chroma is stored at full resolution: its own subsampling cannot be written")
        options: dict[str, Any] = {
            "qtables": image.quantization,
            "subsampling": max(sampling, 0),
            "progressive": bool(image.info.get("progressive")),
            "keep_rgb": canvas.mode == "RGB",
            "optimize": True,
        }
    canvas.image.save(file := io.BytesIO(), "JPEG", **options)
    return file.getvalue()


def _metadata(data: bytes) -> tuple[list[Segment], bytes]:
    """The segments of applications and comments before the first scan, and what follows the image."""
    segments: list[Segment] = []
    at, in_header = 2, True
    while found := _MARKER.search(data, at):
        marker = found[1][0]
        if marker == _EOI:
            return segments, data[found.end() :]
        length = int.from_bytes(data[found.end() : found.end() + 2])
        if in_header and (_APP0 <= marker <= 0xEF or marker == _COM):
            segments.append((marker, data[found.end() + 2 : found.end() + length]))
        in_header &= marker != _SOS
        at = found.end() + max(length, 2)
    return segments, b""


def _of_new_pixels(segments: list[Segment], factor: int) -> Iterator[Segment]:
    """Without thumbnails, which show the old pixels, and with the sizes and resolutions of the new ones."""
    resources = b"".join(content[len(_PHOTOSHOP) :] for content in _all(segments, _APP13, _PHOTOSHOP))
    resources, size = without_photoshop_thumbnail(resources, factor), _MAX_CONTENT - len(_PHOTOSHOP)
    parts = iter([resources[start : start + size] for start in range(0, len(resources), size)])
    for segment in segments:
        marker, content = segment
        if _is(segment, _APP1, _EXIF):
            exif = enlarged_exif(content, factor).removeprefix(_EXIF)
            yield marker, _EXIF + without_exif_thumbnail(exif)
        elif _is(segment, _APP0, _JFIF):
            yield marker, larger_jfif(content, factor)[:12] + b"\0\0"  # the size of its thumbnail, and that
        elif _is(segment, _APP13, _PHOTOSHOP):  # one list, which may be spread over several segments
            yield from ((marker, _PHOTOSHOP + part) for part in parts)
        elif not _is(segment, _APP0, _JFXX):
            yield segment


def _marked(segments: list[Segment], factor: int, event: xmp.Event, notes: Notes) -> list[Segment]:
    packet = next(_all(segments, _APP1, _XMP), None)
    limit = _MAX_CONTENT - len(_XMP)
    before = None if packet is None else enlarged_xmp(packet[len(_XMP) :], factor)
    marked = xmp.mark(before, event, notes, limit)
    if len(marked) > limit:
        notes.add("its XMP packet has no room for the mark, which only this record has")
        return segments
    new = (_APP1, _XMP + marked)
    if packet is not None:
        return [new if _is(segment, _APP1, _XMP) else segment for segment in segments]
    place = sum(_is(segment, _APP0, _JFIF) or _is(segment, _APP1, _EXIF) for segment in segments[:2])
    return [*segments[:place], new, *segments[place:]]


def _is(segment: Segment, marker: int, start: bytes) -> bool:
    return segment[0] == marker and segment[1].startswith(start)


def _all(segments: list[Segment], marker: int, start: bytes) -> Iterator[bytes]:
    return (segment[1] for segment in segments if _is(segment, marker, start))


def _packed(segment: Segment) -> bytes:
    marker, content = segment
    if len(content) > _MAX_CONTENT:
        raise RowError("too_large", f"expected at most {_MAX_CONTENT} bytes in a segment of a JPEG, got {len(content)}")
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content
