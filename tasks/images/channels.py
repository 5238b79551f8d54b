"""From the many ways in which Pillow stores a picture to plain channels: RGB, alpha, all 16 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.images.sixteen_bit import bands, read_deep, to_8_bits


def bit_depth_of(image: Image.Image, data: bytes) -> int:
    """8 or 16. RowError for 32 bits."""
    if image.mode in ("I", "F"):
        raise RowError("undecodable", "expected 1 to 16 bits per channel, found 32, whose white is unknown")
    if image.format == "PNG":
        return 16 if data[24] == 16 else 8  # in the IHDR chunk, always the first
    return 16 if image.mode.startswith("I;16") or max(_tiff_bits(image)) > 8 else 8


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    return tuple(getattr(image, "tag_v2", {}).get(258, (8,)))


def deep_of(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """All 16 bits: (H, W) grey, or (H, W, 3 or 4) RGB(A)."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        if max(_tiff_bits(image)) == 12:
            levels = levels * np.uint16(16)
        white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0  # Pillow minds this up to 8 bits only
        return np.uint16(65535) - levels if white_is_zero else levels
    deep = read_deep(data) if image.mode in ("RGB", "RGBA") else None
    return deep if deep is not None and deep.shape[:2] == (image.height, image.width) else None


def rgb_and_alpha(image: Image.Image, deep: NDArray[np.uint16] | None) -> tuple[Uint8Image, Uint8Image | None]:
    """(H, W, 3) colours as stored, and (H, W) alpha or None when the picture is opaque."""
    if deep is not None:
        levels = to_8_bits(deep)
        if levels.ndim == 2:
            return np.repeat(levels[..., None], 3, axis=2), None
        rgba = levels
    elif image.has_transparency_data:
        rgba = _array_of(image if image.mode == "RGBA" else image.convert("RGBA"))
    else:
        rgba = _array_of(image if image.mode == "RGB" else _to_rgb(image))
    opaque = rgba.shape[2] == 3 or bool((rgba[..., 3] == 255).all())
    return rgba[..., :3], None if opaque else rgba[..., 3]


def _array_of(image: Image.Image) -> Uint8Image:
    """(H, W, channels), as `np.asarray` gives it, which has two more copies in memory while it works."""
    array = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for band in bands(image.height):
        array[band] = np.asarray(image.crop((0, band.start, image.width, min(band.stop, image.height))))
    return array


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB: through the profile for colours that no screen shows, by Pillow's rule for the others."""
    if image.mode not in ("CMYK", "LAB"):
        return image.convert("RGB")
    try:
        icc = io.BytesIO(image.info.get("icc_profile") or b"")
        source = ImageCms.createProfile("LAB") if image.mode == "LAB" else ImageCms.ImageCmsProfile(icc)
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return converted or image.convert("RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # no profile, or none that fits
        return image.convert("RGB")


def is_grey(pixels: NDArray[Any]) -> bool:
    """Whether the three colours are the same everywhere."""
    if pixels.ndim == 2:
        return True
    first, second, third = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool((first == second).all() and (second == third).all())
