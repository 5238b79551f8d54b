"""Turns what decoders give (Pillow's many modes, levels of 8 and 16 bits) into plain channels: RGB, alpha, and all 16
bits where there are more than 8."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tasks.images.sixteen_bit import Uint16Image, bands, to_8_bits

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

_SMALL = 2**20  # pixels
_SPARSE = 64  # rows between those that are looked at first


@dataclass(frozen=True, eq=False)
class Channels:
    """An image as stored, not yet upright."""

    pixels: Uint8Image
    """(H, W, 3) colours, not blended with any background."""
    alpha: Uint8Image | None = None
    """(H, W); None when the image is opaque."""
    deep: Uint16Image | None = None
    """(H, W) grey, (H, W, 2) grey and alpha, or (H, W, 3 or 4) RGB(A)."""
    bit_depth: int = 8
    icc_fits: bool = True
    """Whether a profile of the file still describes the colours: not after a conversion of CMYK or Lab."""


def of_pillow(image: Image.Image) -> Channels:
    """A loaded image of 8 bits or less per channel."""
    if image.has_transparency_data:
        rgba = _array_of(image if image.mode == "RGBA" else image.convert("RGBA"))
        opaque = bool((rgba[..., 3] == 255).all())
        return Channels(rgba[..., :3], None if opaque else rgba[..., 3])
    rgb = _array_of(image if image.mode == "RGB" else _to_rgb(image))
    return Channels(rgb, icc_fits=image.mode not in ("CMYK", "LAB"))


def of_levels(levels: NDArray[Any], alpha: NDArray[Any] | None, mode: str, icc: bytes | None) -> Channels:
    """Grey, RGB, CMYK or Lab levels, uint8 or uint16, and an alpha channel of the same depth (8 bits beside CMYK)."""
    depth = 16 if levels.dtype == np.uint16 else 8
    if mode in ("CMYK", "LAB"):
        narrow = to_8_bits(levels) if depth == 16 else levels
        height, width = narrow.shape[:2]
        image = Image.frombytes(mode, (width, height), np.ascontiguousarray(narrow).tobytes())
        image.info["icc_profile"] = icc
        return Channels(_array_of(_to_rgb(image)), _unless_opaque(alpha), bit_depth=depth, icc_fits=False)
    if depth == 8:
        rgb = np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels
        return Channels(rgb, _unless_opaque(alpha))
    narrow = to_8_bits(levels)
    rgb = np.repeat(narrow[..., None], 3, axis=2) if narrow.ndim == 2 else narrow
    if alpha is None or bool((alpha == 65535).all()):
        return Channels(rgb, None, levels, 16)
    deep = np.dstack([levels, alpha])
    return Channels(rgb, to_8_bits(alpha), deep, 16)


def _unless_opaque(alpha: NDArray[Any] | None) -> Uint8Image | None:
    return None if alpha is None or bool((alpha == 255).all()) else alpha


def _array_of(image: Image.Image) -> Uint8Image:
    """(H, W, channels), copied band by band: `np.asarray` of the whole image holds two more copies meanwhile."""
    if image.width * image.height <= _SMALL:
        return np.array(image)
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
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return True
    return all(_are_equal(pixels[rows]) for rows in (slice(None, None, _SPARSE), slice(None)))  # most differ at once


def _are_equal(pixels: NDArray[Any]) -> bool:
    first, second, third = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool((first == second).all() and (second == third).all())
