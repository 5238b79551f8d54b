"""Holes of a picture: scratches, tears, stains, as a mask names them, and what is put in their place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image

InpaintMask = NDArray[np.bool_]
"""(H, W): True where the picture is unknown."""


def holes_of(mask: Uint8Image, shape: tuple[int, ...]) -> InpaintMask:
    """The holes of a picture of (H, W) `shape` that a decoded mask names: white (from half bright on) is a hole.

    A mask may have another size than the picture, but not another shape. RowError `bad_mask`.
    """
    height, width = shape
    if abs(mask.shape[1] * height - mask.shape[0] * width) > max(height, width):  # more than a pixel of the smaller
        raise RowError("bad_mask", f"expected the shape of {width} x {height}, found {mask.shape[1]} x {mask.shape[0]}")
    return holes_at(np.asarray(Image.fromarray(mask).convert("L")) > 127, (height, width))


def holes_at(holes: InpaintMask, shape: tuple[int, int]) -> InpaintMask:
    """Holes at another (H, W): by nearest where they grow; where they shrink a pixel with any of a hole is one, so
    that no thin scratch is lost."""
    if holes.shape == shape:
        return holes
    return np.ascontiguousarray(_along_first(_along_first(holes, shape[0]).T, shape[1]).T)


def _along_first(holes: InpaintMask, length: int) -> InpaintMask:
    """The same with `length` rows."""
    before, rows = len(holes), np.arange(length)
    if length > before:
        return holes[(2 * rows + 1) * before // (2 * length)]
    counts = np.zeros((before + 1, holes.shape[1]), np.int32)  # of holes above each row
    np.cumsum(holes, axis=0, out=counts[1:])
    return counts[-(-(rows + 1) * before // length)] > counts[rows * before // length]


def fill(known: Uint8Image, holes: InpaintMask, face: Uint8Image) -> Uint8Image:
    """`known` with the pixels of `face`, brought to its size, in the holes; all others to the last bit."""
    height, width = holes.shape
    filled = np.array(Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC))
    np.copyto(filled, known, where=~holes[..., None])
    return filled
