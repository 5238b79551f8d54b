"""Images with 16 bits per channel: to 8 bits and back, and as PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.images.png import write_png

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

Uint16Image = NDArray[np.uint16]
"""(H, W) grey, (H, W, 2) grey and alpha, or (H, W, 3 or 4) RGB(A) uint16."""

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


def full_range(levels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Levels of 1 to 16 bits, spread over [0, 255] or [0, 65535]."""
    if levels.dtype == np.bool_:
        return np.asarray(levels.astype(np.uint8) * np.uint8(255))
    if bits == 8 * levels.dtype.itemsize:
        return levels.astype(levels.dtype.newbyteorder("="), copy=False)
    white, top = 2**bits - 1, np.iinfo(levels.dtype).max
    table = (np.arange(white + 1, dtype=np.uint32) * top + white // 2) // white
    out = np.empty(levels.shape, levels.dtype.newbyteorder("="))
    for band in bands(len(levels)):
        out[band] = table[levels[band]]
    return out


def deep_png(
    deep: Uint16Image, image: Uint8Image, before: Uint8Image, chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A 16-bit PNG of `deep`, with the 8-bit `image` where it differs from `before`, the image as decoded. `chunks`
    (kind and body) go before the pixels."""
    lines = (merged(deep[band], image[band], before[band]) for band in bands(len(deep)))
    return write_png(len(deep), lines, chunks)


def merged(deep: Uint16Image, image: Uint8Image, before: Uint8Image) -> Uint16Image:
    """`deep` with the colours of `image` where these differ from `before`; alpha stays."""
    changed = (image != before).any(axis=-1)
    levels = to_16_bits(image[changed])
    result = deep.copy()
    if deep.ndim == 2:
        result[changed] = levels[:, 0]
    elif deep.shape[2] == 2:
        result[changed, 0] = levels[:, 0]
    else:
        result[..., :3][changed] = levels
    return result
