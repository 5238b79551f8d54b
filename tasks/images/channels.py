"""Turns Pillow's many image modes into plain channels: RGB, alpha, and all 16 bits where there are more than 8."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.images.sixteen_bit import bands, read_deep, to_8_bits

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags


def bit_depth_of(image: Image.Image, data: bytes) -> int:
    """8 or 16 bits per channel, as stored. RowError for 32."""
    if image.mode in ("I", "F"):
        raise RowError("undecodable", "expected 1 to 16 bits per channel, found 32, whose white is unknown")
    if image.format == "PNG":
        return 16 if data[24] == 16 else 8  # byte 24 is IHDR's bit depth: IHDR is always the first chunk
    return 16 if image.mode.startswith("I;16") or max(_tiff_bits(image)) > 8 else 8


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    """Bits of each channel of a TIFF; 8 for other formats."""
    return tuple(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))


def deep_of(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """All 16 bits: (H, W) grey, or (H, W, 3 or 4) RGB(A); None if they cannot be read."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        if max(_tiff_bits(image)) == 12:
            levels = levels * np.uint16(16)  # Pillow unpacks 12 bits to [0, 4095]
        white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow inverts these up to 8 bits only
        return np.uint16(65535) - levels if white_is_zero else levels
    deep = read_deep(data) if image.mode in ("RGB", "RGBA") else None
    return deep if deep is not None and deep.shape[:2] == (image.height, image.width) else None


def rgb_and_alpha(image: Image.Image, deep: NDArray[np.uint16] | None) -> tuple[Uint8Image, Uint8Image | None]:
    """(H, W, 3) colours as stored, and (H, W) alpha, which is None when the image is opaque."""
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
    """(H, W, channels), copied band by band: `np.asarray` of the whole image holds two more copies meanwhile."""
    array = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for band in bands(image.height):
        array[band] = np.asarray(image.crop((0, band.start, image.width, min(band.stop, image.height))))
    return array


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB: CMYK and LAB by colour management (ICC profile to sRGB), all other modes by Pillow's own conversion."""
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
    """Whether the three colour channels are equal everywhere."""
    if pixels.ndim == 2:
        return True
    first, second, third = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool((first == second).all() and (second == third).all())
