"""Inpainting masks: the holes of an image (scratches, tears, stains) and how a restored face fills them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.errors import RowError

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

InpaintMask = NDArray[np.bool_]
"""(H, W): True where the image is unknown."""


def holes_of(mask: Uint8Image, shape: tuple[int, ...]) -> InpaintMask:
    """The holes of an image of (H, W) `shape`, by a decoded mask: white (128 and above) marks a hole.

    The mask may have another size than the image, but must have its aspect ratio. RowError `bad_mask`.
    """
    height, width = shape
    if abs(mask.shape[1] * height - mask.shape[0] * width) > max(
        height, width
    ):  # off by more than a pixel of the smaller one
        raise RowError("bad_mask", f"expected the shape of {width} x {height}, found {mask.shape[1]} x {mask.shape[0]}")
    return holes_at(np.asarray(Image.fromarray(mask).convert("L")) > 127, (height, width))


def holes_at(holes: InpaintMask, shape: tuple[int, int]) -> InpaintMask:
    """The holes resized to (H, W): enlarged by nearest neighbour; reduced so that a pixel that touches a hole is one,
    since a thin scratch must not vanish."""
    if holes.shape == shape:
        return holes
    return np.ascontiguousarray(_along_first(_along_first(holes, shape[0]).T, shape[1]).T)


def _along_first(holes: InpaintMask, length: int) -> InpaintMask:
    """The holes resized to `length` rows."""
    before, rows = len(holes), np.arange(length)
    if length > before:
        return holes[(2 * rows + 1) * before // (2 * length)]
    counts = np.zeros((before + 1, holes.shape[1]), np.int32)  # how many holes are above each row
    np.cumsum(holes, axis=0, out=counts[1:])
    return counts[-(-(rows + 1) * before // length)] > counts[rows * before // length]


def fill(known: Uint8Image, holes: InpaintMask, face: Uint8Image) -> Uint8Image:
    """`known` with its holes filled from `face`, resized to fit; all other pixels stay bit for bit."""
    height, width = holes.shape
    filled = np.array(Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC))
    np.copyto(filled, known, where=~holes[..., None])
    return filled
