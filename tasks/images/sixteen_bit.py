"""16 bits per channel, which Pillow has for grey pictures only: OpenCV reads the colour ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image

Uint16Image = NDArray[np.uint16]
"""(H, W) grey, or (H, W, 3 or 4) RGB(A) uint16."""

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's number for so many channels."""
_LEVEL = 2
_BAND_ROWS = 256


def read_deep(data: bytes) -> Uint16Image | None:
    """A 16-bit colour picture as (H, W, 3 or 4) uint16 RGB(A), as stored; None when it cannot be had."""
    if data[:4] == b"\x89PNG" and not _chunks_fit(data):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] not in (3, 4):
        return None
    deep = np.asarray(image, dtype=np.uint16)
    for band in bands(len(deep)):
        deep[band] = deep[band][..., [2, 1, 0, 3][: deep.shape[2]]]
    return deep


def bands(height: int) -> Iterator[slice]:
    """Rows of a picture, some at a time: whole copies of a large one take more memory than it does."""
    return (slice(first, first + _BAND_ROWS) for first in range(0, height, _BAND_ROWS))


def _chunks_fit(png: bytes) -> bool:
    """Whether no chunk claims more than there is: OpenCV sets 2 GB aside for one that claims 2 GB."""
    at = 8
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        at += 12 + length
        if kind == b"IEND":
            return at <= len(png)
    return False


def to_8_bits(deep: Uint16Image) -> NDArray[np.uint8]:
    """[0, 65535] -> [0, 255], rounded."""
    levels = np.empty(deep.shape, np.uint8)
    for band in bands(len(deep)):
        levels[band] = (deep[band].astype(np.uint32) + 128) // 257
    return levels


def to_16_bits(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[0, 255] -> [0, 65535]: 255 becomes 65535."""
    return levels.astype(np.uint16) * np.uint16(257)


def deep_png(
    deep: Uint16Image,
    image: Uint8Image,
    before: Uint8Image,
    icc: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """A 16-bit PNG of `deep`, with the 8-bit `image` where that differs from `before`, the picture as decoded."""
    height, width = deep.shape[:2]
    channels = 1 if deep.ndim == 2 else deep.shape[2]
    png = io.BytesIO()
    png.write(b"\x89PNG\r\n\x1a\n")
    png.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)))
    if icc:
        png.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        png.write(_chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1)))
    if exif:
        png.write(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    squeeze = zlib.compressobj(_LEVEL)
    for band in bands(height):
        lines = _filtered(_merged(deep[band], image[band], before[band]), 2 * channels)
        png.write(_chunk(b"IDAT", squeeze.compress(lines.data)))
    png.write(_chunk(b"IDAT", squeeze.flush()))
    png.write(_chunk(b"IEND", b""))
    return png.getvalue()


def _filtered(pixels: Uint16Image, step: int) -> NDArray[np.uint8]:
    """Rows as PNG packs them: the filter "Sub", then each byte less that of the pixel before it, `step` bytes ago."""
    rows = pixels.astype(">u2").view(np.uint8).reshape(len(pixels), -1)
    lines = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    lines[:, 0] = 1
    lines[:, 1 : 1 + step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=lines[:, 1 + step :])
    return lines


def _merged(deep: Uint16Image, image: Uint8Image, before: Uint8Image) -> Uint16Image:
    changed = (image != before).any(axis=-1)
    levels = to_16_bits(image[changed])
    merged = deep.copy()
    if deep.ndim == 2:
        merged[changed] = levels[:, 0]
    else:
        merged[..., :3][changed] = levels
    return merged


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
