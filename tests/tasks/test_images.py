"""Decoding takes every picture an archive may hold, and answers everything else with a RowError."""

import io
import random
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from bfr_models.errors import RowError
from tasks._images import Picture, decode, encode

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """(H, W, 3) uint8 without symmetry, so that every flip and turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 7, y * 9, (x + 2 * y) * 3], axis=-1).astype(np.uint8)


def saved(image: Image.Image, fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def code_of(data: bytes | None) -> str:
    with pytest.raises(RowError) as caught:
        decode(data)
    return caught.value.code


def deep_tiff(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".tiff", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "BMP", "GIF"])
def test_lossless_formats_give_the_pixels_that_went_in(fmt: str) -> None:
    pixels = gradient() // 64 * 64  # few colours, so that a GIF palette holds them all
    picture = decode(saved(Image.fromarray(pixels), fmt))
    assert np.array_equal(picture.pixels, pixels)
    assert (picture.format, picture.bit_depth, picture.n_frames, picture.grey) == (fmt, 8, 1, False)


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(fmt: str) -> None:
    smooth = np.repeat(np.linspace(20, 220, 32).astype(np.uint8)[None, :, None], 24, 0).repeat(3, 2)
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
    assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    again = decode(encode(picture.pixels, "png", like=picture))
    assert np.array_equal(again.pixels, picture.pixels)
    assert opened(encode(picture.pixels, "png", like=picture)).getexif()[ExifTags.Base.Artist] == "Ada"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_turned_16_bit_tiff_agrees_with_its_own_8_bits(channels: int, orientation: int) -> None:
    pixels = gradient().astype(np.uint16) * 257 + 5
    data = deep_tiff(pixels if channels == 3 else pixels[..., 0])
    spot = data.index(struct.pack("<HHI", 262, 3, 1))  # a tag we can do without becomes the orientation
    image = opened(data)
    assert image.tag_v2[262] in (1, 2)
    turned = _with_orientation(data, orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(turned))).convert("RGB"))
    picture = decode(turned)
    assert spot and picture.pixels.shape == upright.shape
