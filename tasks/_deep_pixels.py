"""16 bits per channel, which Pillow has for grey pictures only: OpenCV reads and writes the colour ones."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

Uint16Image = NDArray[np.uint16]
"""(H, W) grey, or (H, W, 3 or 4) RGB(A) uint16."""

_PNG_HEAD = 33
"""Bytes of the signature and the IHDR chunk, behind which the other chunks start."""


def read_deep(data: bytes) -> Uint16Image | None:
    """A 16-bit colour picture as (H, W, 3 or 4) uint16 RGB(A), as stored; None when it cannot be had."""
    if data[:4] == b"\x89PNG" and not _chunks_fit(data):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] not in (3, 4):
        return None
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])


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
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_16_bits(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[0, 255] -> [0, 65535]: 255 becomes 65535."""
    return levels.astype(np.uint16) * np.uint16(257)


def deep_png(pixels: Uint16Image, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """A 16-bit PNG."""
    bgr = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not done:
        raise ValueError(f"expected a picture that PNG can hold, got {pixels.shape}")
    png, chunks = encoded.tobytes(), b""
    if icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return png[:_PNG_HEAD] + chunks + png[_PNG_HEAD:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
