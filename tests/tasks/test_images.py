"""Decoding takes every picture that an archive may hold, and answers everything else with a RowError."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin

from bfr_models.errors import RowError
from tasks._image_metadata import MAX_FRAMES
from tasks._images import Format, decode, encode

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


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "BMP", "GIF"])
def test_lossless_formats_give_the_pixels_that_went_in(fmt: str) -> None:
    pixels = gradient() // 64 * 64  # few colours, so that a GIF palette holds them all
    picture = decode(saved(Image.fromarray(pixels), fmt))
    assert np.array_equal(picture.pixels, pixels)
    assert (picture.format, picture.bit_depth, picture.n_frames, picture.grey) == (fmt, 8, 1, False)
    assert picture.alpha is picture.deep is None


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(fmt: str) -> None:
    smooth = np.tile(np.linspace(20, 220, 32).astype(np.uint8)[None, :, None], (24, 1, 3))
    picture = decode(saved(Image.fromarray(smooth), fmt, quality=95))
    assert picture.format == fmt
    assert np.abs(picture.pixels.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation_is_applied_once_and_reset(fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = orientation, "Ada"
    data = saved(Image.fromarray(gradient()), fmt, exif=exif)
    picture = decode(data)
    assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(opened(data))))
    written = encode(picture.pixels, "png", like=picture)
    assert np.array_equal(decode(written).pixels, picture.pixels)
    assert opened(written).getexif()[ExifTags.Base.Artist] == "Ada"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_turns_its_alpha_and_its_16_bits_too(orientation: int) -> None:
    rgba = np.dstack([deep_gradient(), deep_gradient()[..., 0]])
    picture = decode(_png_with_exif(deep_file(rgba, ".png"), orientation))
    assert picture.deep is not None
    assert picture.alpha is not None
    assert np.abs(picture.deep[..., :3] / 257 - picture.pixels).max() <= 0.5
    assert np.abs(picture.deep[..., 3] / 257 - picture.alpha).max() <= 0.5
    flat = saved(Image.fromarray(gradient()), "PNG", exif=_oriented(orientation))
    assert picture.pixels.shape == decode(flat).pixels.shape
    assert (picture.pixels[0, 0, 0] > picture.pixels[-1, -1, 0]) == (orientation in (3, 4, 7, 8)) or orientation in (
        2, 4, 5, 6,
    )  # fmt: skip


def _oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def _png_with_exif(png: bytes, orientation: int) -> bytes:
    body = b"eXIf" + _oriented(orientation).tobytes().removeprefix(b"Exif\0\0")
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]
