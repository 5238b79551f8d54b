"""Small images of every kind, and the error code of a broken one."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bfr_models.errors import RowError
from tasks.images.codec import decode

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = SRGB[:16] + b"GRAY" + SRGB[20:]  # only its kind is looked at


def gradient(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """(H, W, 3) without symmetry, so that every flip and turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 7, y * 9, (x + 2 * y) * 3], axis=-1).astype(np.uint8)


def deep_gradient() -> NDArray[np.uint16]:
    """The same in 16 bits, with low bits that 8 bits cannot hold."""
    return gradient().astype(np.uint16) * 257 // 2 + 77


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    image.save(file := io.BytesIO(), fmt, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def deep_file(pixels: NDArray[np.uint16], fmt: str) -> bytes:
    order = [0] if pixels.ndim == 2 else [2, 1, 0, 3][: pixels.shape[2]]
    return cv2.imencode(fmt, pixels if pixels.ndim == 2 else pixels[..., order])[1].tobytes()


def code_of(data: bytes | None) -> str:
    with pytest.raises(RowError, match="expected") as caught:
        decode(data)
    return caught.value.code
