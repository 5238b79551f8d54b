"""One reader per format: from the bytes of a file to the channels of its image, and what is beside them.

Each takes the file apart first and gives the decoder what the pixels need, so that nothing beside the image can cost
it. Each format has one decoder, the one that was made for it: libpng, libjpeg, libwebp, tifffile.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from bfr_models.errors import RowError
from tasks.images.beside import Beside
from tasks.images.channels import Channels, of_levels, of_pillow
from tasks.images.jpeg_segments import count_scans, split_jpeg
from tasks.images.limits import MAX_PIXELS, MAX_SCANS, MAX_SEGMENTS, MIN_SIDE
from tasks.images.metadata import beside_pillow, beside_tiff, settle
from tasks.images.png_chunks import header_of, split_png
from tasks.images.tiff_directories import Tiff, contents
from tasks.images.tiff_reader import read_tiff, size_of

Read = tuple[Channels, Beside, int]
"""The image as stored, what is beside it, and its orientation, 1 to 8."""


def kind_of(data: bytes) -> str | None:
    """The format by a file's first bytes; None for one that is not read here."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return "BMP" if data[:2] == b"BM" else None


def read(kind: str, data: bytes, max_pixels: int) -> Read:
    """The image of a file of some kind. RowError, or whatever its decoder raises for garbage."""
    return _READERS[kind](data, max_pixels)


def size(kind: str, data: bytes) -> tuple[int, int]:
    """Width and height by the header. Raises whatever a broken one makes the parser raise."""
    if kind == "PNG":
        header = header_of(data)
        return header.width, header.height
    if kind == "TIFF":
        return size_of(data)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    bare = split_jpeg(data)[0] if kind == "JPEG" else data
    with Image.open(io.BytesIO(bare), formats=[kind]) as image:
        return image.size


def check_size(width: int, height: int, max_pixels: int) -> None:
    """RowError `too_large` or `too_small` for an image that is."""
    if width * height > max_pixels:
        raise RowError(
            "too_large",
            f"expected at most {max_pixels / 1e6:g} megapixels, found {width} x {height} = "
            f"{width * height / 1e6:g} megapixels",
        )
    if min(width, height) < MIN_SIDE:
        raise RowError("too_small", f"expected at least {MIN_SIDE} px a side, found {width} x {height}")


def _opened(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    # Pillow's guard against decompression bombs is a module global. It is set to our limit, never switched off.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    image = Image.open(io.BytesIO(data), formats=[kind])
    check_size(*image.size, max_pixels)
    return image


def _jpeg(data: bytes, max_pixels: int) -> Read:
    if count_scans(data, MAX_SCANS + 1) > MAX_SCANS:
        raise RowError(
            "undecodable", f"expected a JPEG of at most {MAX_SCANS} scans and {MAX_SEGMENTS} segments, found more"
        )
    bare, beside = split_jpeg(data)
    image = _opened(bare, "JPEG", max_pixels)
    image.load()
    beside.dpi = beside_pillow(image).dpi if image.info.get("jfif_unit") else None
    if image.mode == "CMYK":
        image.info["icc_profile"] = beside.icc
    return of_pillow(image), beside, settle(beside)


def _png(data: bytes, max_pixels: int) -> Read:
    import imagecodecs

    header = header_of(data)
    check_size(header.width, header.height, max_pixels)
    bare, beside = split_png(data)
    levels: Any = np.asarray(imagecodecs.png_decode(bare))
    del bare
    orientation = settle(beside)
    if levels.ndim == 2:
        return of_levels(levels, None, "L", None), beside, orientation
    colours = levels[..., 0] if levels.shape[2] == 2 else levels[..., :3]
    alpha = levels[..., -1] if levels.shape[2] in (2, 4) else None
    return of_levels(colours, alpha, "L" if colours.ndim == 2 else "RGB", None), beside, orientation


def _tiff(data: bytes, max_pixels: int) -> Read:
    tiff = Tiff(data)
    found = contents(tiff)
    check_size(found.image.width, found.image.height, max_pixels)
    beside, orientation = beside_tiff(tiff, found)
    image = read_tiff(data, found.image)
    beside.notes.extend(image.notes)
    return of_levels(image.levels, image.alpha, image.mode, beside.icc), beside, orientation


def _webp(data: bytes, max_pixels: int) -> Read:
    image = _opened(data, "WEBP", max_pixels)
    image.load()
    beside = beside_pillow(image)
    return of_pillow(image), beside, settle(beside)


def _plain(kind: str) -> Callable[[bytes, int], Read]:
    def read_it(data: bytes, max_pixels: int) -> Read:
        image = _opened(data, kind, max_pixels)
        image.load()
        return of_pillow(image), beside_pillow(image), 1

    return read_it


_READERS: dict[str, Callable[[bytes, int], Read]] = {
    "JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WEBP": _webp, "BMP": _plain("BMP"), "GIF": _plain("GIF"),
}  # fmt: skip
