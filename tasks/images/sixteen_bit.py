"""Images with 16 bits per channel: to 8 bits and back, and as PNGs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image

Uint16Image = NDArray[np.uint16]
"""(H, W) grey, (H, W, 2) grey and alpha, or (H, W, 3 or 4) RGB(A) uint16."""

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> PNG's colour type: greyscale, truecolour, and each with alpha."""
_LEVEL = 2  # zlib's, as for PNGs of 8 bits (`codec`)
_BAND_ROWS = 256  # 20 MB of a 16-bit RGBA image that is 10,000 px wide


def bands(height: int) -> Iterator[slice]:
    """The rows of an image, some at a time, so that no step makes a second copy of a large one."""
    return (slice(first, first + _BAND_ROWS) for first in range(0, height, _BAND_ROWS))


def to_8_bits(deep: Uint16Image) -> NDArray[np.uint8]:
    """[0, 65535] -> [0, 255], rounded: x / 257, as 65535 = 255 x 257."""
    levels = np.empty(deep.shape, np.uint8)
    for band in bands(len(deep)):
        levels[band] = (deep[band].astype(np.uint32) + 128) // 257
    return levels


def to_16_bits(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[0, 255] -> [0, 65535]: 255 becomes 65535, and `to_8_bits` gives the same levels back."""
    return levels.astype(np.uint16) * np.uint16(257)


def deep_png(
    deep: Uint16Image, image: Uint8Image, before: Uint8Image, chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A 16-bit PNG of `deep`, with the 8-bit `image` where it differs from `before`, the image as decoded. `chunks`
    (kind and body) go before the pixels."""
    height, width = deep.shape[:2]
    channels = 1 if deep.ndim == 2 else deep.shape[2]
    png = io.BytesIO()
    png.write(b"\x89PNG\r\n\x1a\n")
    png.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)))
    for kind, body in chunks:
        png.write(_chunk(kind, body))
    compressor = zlib.compressobj(_LEVEL)
    for band in bands(height):
        lines = _filtered(_merged(deep[band], image[band], before[band]), 2 * channels)
        png.write(_chunk(b"IDAT", compressor.compress(lines.data)))
    png.write(_chunk(b"IDAT", compressor.flush()))
    png.write(_chunk(b"IEND", b""))
    return png.getvalue()


def _filtered(pixels: Uint16Image, step: int) -> NDArray[np.uint8]:
    """Scanlines by PNG's filter 1, "Sub": each byte minus the one `step` bytes (a pixel) before it, modulo 256."""
    rows = pixels.astype(">u2").view(np.uint8).reshape(len(pixels), -1)
    lines = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    lines[:, 0] = 1
    lines[:, 1 : 1 + step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=lines[:, 1 + step :])
    return lines


def _merged(deep: Uint16Image, image: Uint8Image, before: Uint8Image) -> Uint16Image:
    """`deep` with the colours of `image` where these differ from `before`; alpha stays."""
    changed = (image != before).any(axis=-1)
    levels = to_16_bits(image[changed])
    merged = deep.copy()
    if deep.ndim == 2:
        merged[changed] = levels[:, 0]
    elif deep.shape[2] == 2:
        merged[changed, 0] = levels[:, 0]
    else:
        merged[..., :3][changed] = levels
    return merged


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
