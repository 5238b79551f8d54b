"""Pixels: uint8 images to float tensors and back, and the one resize that everything uses.

What reads and writes images imports this, and does so without torch: it is imported by the first face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Uint8Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""
RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Their shares in the luma (ITU-R BT.601)."""
TO_LUMA_AND_COLOUR = np.array([(RED, GREEN, BLUE), (1 - RED, -GREEN, -BLUE), (-RED, -GREEN, 1 - BLUE)], np.float32)
"""From RGB to luma, and what red and blue have over it."""


def to_tensor(image: Uint8Image) -> Tensor:
    """(H, W, 3) uint8 in [0, 255] -> (3, H, W) float32 in [-1, 1]."""
    import torch

    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(..., 3, H, W) float in [-1, 1] -> (..., H, W, 3) uint8, rounded (not truncated) and clipped."""
    import torch

    levels = images.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return levels.to("cpu", torch.uint8).movedim(-3, -1).contiguous().numpy()


def as_grey(image: Uint8Image) -> Uint8Image:
    """The luma of (H, W, 3) uint8, rounded, in all three channels."""
    luma = np.rint(image @ np.array([RED, GREEN, BLUE])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize of (B, C, H, W); overshoot is kept, the caller clips.

    Untouched when the size is right already.
    """
    height_width = (size, size) if isinstance(size, int) else size
    if tuple(images.shape[-2:]) == height_width:
        return images
    from torch.nn.functional import interpolate

    return interpolate(images, height_width, mode="bicubic", antialias=True, align_corners=False)


def face_tensor(image: Uint8Image, size: int) -> Tensor:
    """An aligned face of any size as a method's input: (3, size, size) in [-1, 1]."""
    return resize(to_tensor(image)[None], size)[0].clamp(-1, 1)
