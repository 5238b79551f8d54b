"""Writes PNGs band by band: no second copy of a large image, where Pillow holds one of four bytes a pixel."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> PNG's colour type: greyscale, with alpha; truecolour, with alpha."""
_LEVEL = 2  # zlib's, as for PNGs that Pillow writes (`codec`)


def write_png(height: int, bands: Iterable[NDArray[Any]], chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of `height` rows from `bands` of some rows each, (rows, W) or (rows, W, 1 to 4) uint8 or uint16. `chunks`
    (kind and body) go before the pixels."""
    png, compressor = io.BytesIO(), zlib.compressobj(_LEVEL)
    for number, band in enumerate(bands):
        channels = 1 if band.ndim == 2 else band.shape[2]
        if number == 0:
            shape = (band.shape[1], height, 8 * band.itemsize, _COLOUR_TYPES[channels])
            head = (b"IHDR", struct.pack(">IIBBBBB", *shape, 0, 0, 0))
            png.write(b"".join([b"\x89PNG\r\n\x1a\n", *(_chunk(*chunk) for chunk in (head, *chunks))]))
        lines = _filtered(band, band.itemsize * channels)
        png.write(_chunk(b"IDAT", compressor.compress(lines.data)))
    png.write(_chunk(b"IDAT", compressor.flush()))
    png.write(_chunk(b"IEND", b""))
    return png.getvalue()


def _filtered(pixels: NDArray[Any], step: int) -> NDArray[np.uint8]:
    """Scanlines by PNG's filter 1, "Sub": each byte minus the one `step` bytes (a pixel) before it, modulo 256."""
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
    lines = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    lines[:, 0] = 1
    lines[:, 1 : 1 + step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=lines[:, 1 + step :])
    return lines


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
