"""Images with 16 bits per channel. Pillow keeps them for greyscale only, so OpenCV decodes the colour ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image
from tasks.images.png import write_png

Uint16Image = NDArray[np.uint16]
"""(H, W) grey, or (H, W, 3 or 4) RGB(A) uint16."""

_BAND_ROWS = 256  # 20 MB of a 16-bit RGBA image that is 10,000 px wide


def read_deep(data: bytes) -> Uint16Image | None:
    """A 16-bit colour image as (H, W, 3 or 4) uint16 RGB(A), as stored; None if OpenCV cannot read it."""
    if data[:4] == b"\x89PNG" and not _chunks_fit(data):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] not in (3, 4):
        return None
    deep = np.asarray(image, dtype=np.uint16)
    for band in bands(len(deep)):  # OpenCV's BGR(A) to RGB(A)
        deep[band] = deep[band][..., [2, 1, 0, 3][: deep.shape[2]]]
    return deep


def bands(height: int) -> Iterator[slice]:
    """The rows of an image, some at a time, so that no step makes a second copy of a large one."""
    return (slice(first, first + _BAND_ROWS) for first in range(0, height, _BAND_ROWS))


def _chunks_fit(png: bytes) -> bool:
    """Whether all chunks end within the file: OpenCV allocates what a chunk claims, up to 2 GB, before it reads it."""
    at = 8
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        at += 12 + length  # with its length, type and CRC
        if kind == b"IEND":
            return at <= len(png)
    return False


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
    deep: Uint16Image,
    image: Uint8Image,
    before: Uint8Image,
    icc: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """A 16-bit PNG of `deep`, with the 8-bit `image` where it differs from `before`, the image as decoded."""
    lines = (merged(deep[band], image[band], before[band]) for band in bands(len(deep)))
    return write_png(len(deep), lines, icc, exif, dpi)


def merged(deep: Uint16Image, image: Uint8Image, before: Uint8Image) -> Uint16Image:
    """`deep` with the colours of `image` where these differ from `before`; alpha stays."""
    changed = (image != before).any(axis=-1)
    levels = to_16_bits(image[changed])
    merged = deep.copy()
    if deep.ndim == 2:
        merged[changed] = levels[:, 0]
    else:
        merged[..., :3][changed] = levels
    return merged
