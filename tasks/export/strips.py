"""Samples as the strips of a TIFF page, compressed as the page was.

LZW, deflate and PackBits work on bytes: the samples are brought into the file's byte order (and through its predictor)
and go to libtiff as a grey image of their bytes, so that any depth and number of channels can be written.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.export.canvas import Canvas
from tasks.export.notes import Notes

_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
_PILLOW = {_LZW: "tiff_lzw", _PACKBITS: "packbits"}
_PHOTOMETRIC = {"L": 1, "RGB": 2, "CMYK": 5, "LAB": 8}
_HORIZONTAL = 2  # the predictor that keeps differences to the sample on the left
_STRIP_BYTES = 256 * 1024


@dataclass(frozen=True)
class Stored:
    """How a page was stored: values of its tags."""

    compression: int = _NONE
    predictor: int = 1
    rows: int = 0  # of a strip; 0 for tiles


@dataclass(frozen=True)
class Strips:
    """The data of a page, and the tags that describe how it is stored, but for where the strips are."""

    blocks: list[bytes]
    tags: dict[int, list[int]]
    jpeg_tables: bytes = b""


def encoded_strips(canvas: Canvas, order: str, stored: Stored, notes: Notes) -> Strips:
    """The canvas by the compression of its page; by deflate, with a note, where that cannot be written."""
    height, width, channels = canvas.samples.shape
    compression, predictor = stored.compression, stored.predictor
    if compression == _JPEG and not canvas.is_deep and canvas.mode in ("L", "RGB"):
        return _jpeg(canvas)
    if compression not in (_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE):
        notes.add("its compression cannot be written: it is deflate now")
        compression, predictor = _DEFLATE, _HORIZONTAL
    predictor = _HORIZONTAL if predictor == _HORIZONTAL and compression in (_LZW, _DEFLATE, _OLD_DEFLATE) else 1
    per_row = width * channels * canvas.samples.itemsize
    rows = min(height, stored.rows or max(1, _STRIP_BYTES // per_row))
    blocks = []
    for first in range(0, height, rows):
        lines = _bytes(canvas.samples[first : first + rows], order, predictor)
        blocks.append(_compressed(lines, compression))
    tags = _tags(canvas, compression, rows)
    if predictor != 1:
        tags[317] = [predictor]
    return Strips(blocks, tags)


def _tags(canvas: Canvas, compression: int, rows: int) -> dict[int, list[int]]:
    height, width, channels = canvas.samples.shape
    tags = {
        256: [width], 257: [height], 258: [8 * canvas.samples.itemsize] * channels, 259: [compression],
        262: [_PHOTOMETRIC[canvas.colours]], 277: [channels], 278: [rows], 284: [1],
    }  # fmt: skip
    return tags | ({338: [2]} if canvas.mode != canvas.colours else {})  # ExtraSamples: alpha, not multiplied in


def _bytes(samples: NDArray[Any], order: str, predictor: int) -> NDArray[np.uint8]:
    """(rows, bytes per row) of some rows, in the file's byte order."""
    if predictor == _HORIZONTAL:
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]  # modulo 2^8 or 2^16, as TIFF has it
        samples = differences
    ordered = np.ascontiguousarray(samples.astype(f"{order}u{samples.itemsize}"))
    return ordered.view(np.uint8).reshape(len(samples), -1)


def _compressed(lines: NDArray[np.uint8], compression: int) -> bytes:
    if compression == _NONE:
        return lines.tobytes()
    if compression in (_DEFLATE, _OLD_DEFLATE):
        return zlib.compress(lines.tobytes(), 6)
    blocks, _ = _by_libtiff(Image.fromarray(lines), _PILLOW[compression], rows=len(lines))
    return blocks[0]


def _jpeg(canvas: Canvas) -> Strips:
    """TIFF's JPEG (compression 7): libtiff's own strips, with its tables and its subsampling."""
    height = canvas.samples.shape[0]
    rows = min(height, 256)
    blocks, page = _by_libtiff(canvas.image, "jpeg", rows=rows, quality=95)
    tags = _tags(canvas, _JPEG, int(page.get(278, rows))) | {262: [int(page[262])]}
    if 530 in page:
        tags[530] = list(page[530])
    return Strips(blocks, tags, bytes(page.get(347, b"")))


def _by_libtiff(image: Image.Image, compression: str, rows: int, **options: int) -> tuple[list[bytes], Any]:
    """The strips of an image, and its tags."""
    image.save(file := io.BytesIO(), "TIFF", compression=compression, tiffinfo={278: rows}, **options)
    with Image.open(file, formats=["TIFF"]) as written:
        page: Any = written.tag_v2  # type: ignore[attr-defined]
        places = zip(page[273], page[279], strict=True)
        data = file.getvalue()
        return [data[start : start + length] for start, length in places], page
