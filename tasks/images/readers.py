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
from tasks.images.dicom_reader import dicom_size, read_dicom
from tasks.images.document_readers import develop, pdf_page, raw_size
from tasks.images.jpeg_segments import count_scans, split_jpeg
from tasks.images.limits import MAX_PIXELS, MAX_SCANS, MAX_SEGMENTS, check_size
from tasks.images.metadata import beside_pillow, beside_tiff, settle
from tasks.images.newer_readers import (
    avif_size,
    heif_size,
    jp2_size,
    jpeg_of_jxl,
    jxl_size,
    read_avif,
    read_heif,
    read_jp2,
    read_jxl,
)
from tasks.images.png_chunks import header_of, split_png
from tasks.images.tiff_directories import Tiff, contents
from tasks.images.tiff_reader import is_raw, read_tiff, size_of

Read = tuple[Channels, Beside, int]
"""The image as stored, what is beside it, and its orientation, 1 to 8."""


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
    if kind in _SIZES:
        return _SIZES[kind](data)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    bare = split_jpeg(data)[0] if kind == "JPEG" else data
    with Image.open(io.BytesIO(bare), formats=[kind]) as image:
        return image.size


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
    if is_raw(tiff, found.image):
        return _with_what_stands_around(_raw(data, max_pixels), beside_tiff(tiff, found)[0])
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
        return of_pillow(image), beside_pillow(image, data), 1

    return read_it


def _raw(data: bytes, max_pixels: int) -> Read:
    found = develop(data, max_pixels)
    if not isinstance(found, bytes):
        return found
    channels, beside, orientation = _jpeg(found, max_pixels)
    beside.notes.append("the full-size image that the camera made of its raw data")
    return channels, beside, orientation


def _with_what_stands_around(read: Read, around: Beside) -> Read:
    """A raw file's image, with what the file itself says of it; how it is turned, and its profile, are its own."""
    channels, beside, orientation = read
    for name in ("exif", "xmp", "iptc", "dpi"):
        setattr(beside, name, getattr(around, name) or getattr(beside, name))
    return channels, beside, orientation


def _bare_raw(data: bytes, max_pixels: int) -> Read:
    channels, beside, orientation = _raw(data, max_pixels)
    if beside.exif is None:
        beside.left_out("what the camera says of it")
    return channels, beside, orientation


def _jxl(data: bytes, max_pixels: int) -> Read:
    jpeg = jpeg_of_jxl(data, max_pixels)
    return read_jxl(data, max_pixels) if jpeg is None else _jpeg(jpeg, max_pixels)


def _pdf(data: bytes, max_pixels: int) -> Read:
    page = pdf_page(data, 0, max_pixels)
    if page.jpeg is not None:
        channels, beside, orientation = _jpeg(page.jpeg, max_pixels)
        beside.notes.append("the scan in a page of a PDF")
    else:
        assert page.pixels is not None
        channels = of_levels(page.pixels, None, "L" if page.pixels.ndim == 2 else "RGB", None)
        drawn = f"a page of a PDF, drawn at {page.dpi:g} dpi" if page.dpi else "the scan in a page of a PDF"
        beside = Beside(dpi=(page.dpi, page.dpi) if page.dpi else None, notes=[drawn])
        orientation = 1
    beside.n_frames = page.n_pages
    return channels, beside, orientation


def _pdf_size(data: bytes) -> tuple[int, int]:
    pixels = _pdf(data, MAX_PIXELS)[0].pixels
    return pixels.shape[1], pixels.shape[0]


_READERS: dict[str, Callable[[bytes, int], Read]] = {
    "JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WEBP": _webp, "BMP": _plain("BMP"), "GIF": _plain("GIF"),
    "AVIF": read_avif, "HEIF": read_heif, "JXL": _jxl, "JPEG2000": read_jp2, "RAW": _bare_raw, "PDF": _pdf,
    "DICOM": read_dicom,
}  # fmt: skip
_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "AVIF": avif_size, "HEIF": heif_size, "JXL": jxl_size, "JPEG2000": jp2_size, "RAW": raw_size, "PDF": _pdf_size,
    "DICOM": dicom_size,
}  # fmt: skip
