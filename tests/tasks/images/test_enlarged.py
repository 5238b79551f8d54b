"""An enlarged image as a file: what it had beside its 8-bit colours grows with it, and it prints as large as before."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bfr_models.upscalers.lanczos import enlarge
from tasks.images.beside import Beside
from tasks.images.codec import Format, decode, encode, largest_factor
from tasks.images.enlarged import enlarged_beside
from tests.tasks.images.samples import SRGB, deep_file, deep_gradient, gradient, opened, saved


def enlarged(data: bytes, factor: int = 2, fmt: Format = "png", **changes: Any) -> bytes:
    like = decode(data)
    image = enlarge(like.pixels, factor)
    if changes:
        image[4:8, 4:8] = 200
    return encode(image, fmt, 95, like, factor)


@pytest.mark.parametrize("fmt", ["png", "webp", "jpeg"])
def test_resolution_and_sizes_in_the_metadata_grow(fmt: Format) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.XResolution] = "Ada", 150.0
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 32, 24
    data = saved(Image.fromarray(gradient()), "JPEG", icc_profile=SRGB, exif=exif, dpi=(300, 200))
    written = opened(enlarged(data, 4, fmt))
    assert written.size == (128, 96) and written.info["icc_profile"] == SRGB
    tags = written.getexif()
    assert tags[ExifTags.Base.Artist] == "Ada" and float(tags[ExifTags.Base.XResolution]) == 600
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 128
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageHeight] == 96
    if fmt != "webp":  # which has no resolution of its own
        assert written.info["dpi"] == pytest.approx((1200, 800), abs=0.1)


@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_only_what_counts_pixels_changes_in_an_exif_block(kind: int) -> None:
    """Sizes grow where they stand: a maker note has offsets into the block, so nothing may move."""
    note = bytes(range(64))
    value = struct.pack(">HH", 40_000, 0) if kind == 3 else struct.pack(">I", 40_000)
    outer = struct.pack(">HHHII", 2, 0x011A, 5, 1, 38) + struct.pack(">HHII", 0x8769, 4, 1, 46) + bytes(4)
    inner = struct.pack(">HHHI", 2, 0xA002, kind, 1) + value + struct.pack(">HHII", 0x927C, 7, 64, 76) + bytes(4)
    block = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + outer + struct.pack(">II", 300, 1) + inner + note
    assert len(block) == 6 + 76 + 64
    beside = enlarged_beside(Beside(exif=block, xmp=b'<x exif:PixelXDimension="40000" tiff:Make="A4"/>'), 4)
    assert beside.exif is not None and len(beside.exif) == len(block) and beside.exif.endswith(note)
    exif = Image.Exif()
    exif.load(beside.exif)
    assert exif[0x011A] == 1200 and exif.get_ifd(0x8769)[0xA002] == 160_000
    assert beside.xmp == b'<x exif:PixelXDimension="160000" tiff:Make="A4"/>'
    changed = [place for place, (a, b) in enumerate(zip(block, beside.exif, strict=True)) if a != b]
    assert changed and set(changed) <= {*range(6 + 38, 6 + 42), *range(6 + 48, 6 + 60)}
    assert enlarged_beside(Beside(exif=block[:30]), 2).exif == block[:30]  # broken: as it was


def test_metadata_that_says_nothing_of_the_size_stays_byte_for_byte() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "public domain"
    data = saved(Image.fromarray(gradient()), "PNG", exif=exif)
    assert opened(enlarged(data)).info["exif"] == opened(encode(gradient(), like=decode(data))).info["exif"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_grey_stays_grey_and_alpha_is_enlarged(mode: str) -> None:
    levels = np.dstack([gradient(), gradient()[..., 1]])
    source = Image.fromarray(levels).convert(mode)
    like = decode(saved(source, "PNG"))
    for fmt in ("png", "webp"):
        written = opened(enlarged(saved(source, "PNG"), 2, fmt))
        if fmt == "png":
            assert written.mode == mode
            colours = np.asarray(written.convert("RGB"))
            assert np.array_equal(colours, enlarge(like.pixels, 2))
        if like.alpha is not None:
            assert np.array_equal(np.asarray(written.convert("RGBA"))[..., 3], enlarge(like.alpha, 2))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_enlarged_and_kept_where_no_face_is(channels: int) -> None:
    deep = {1: deep_gradient()[..., 0], 3: deep_gradient(), 4: np.dstack([deep_gradient(), deep_gradient()[..., 1]])}
    again = decode(enlarged(deep_file(deep[channels], ".png"), changed=True))
    assert again.deep is not None
    inside = np.zeros(again.deep.shape[:2], bool)
    inside[4:8, 4:8] = True
    assert np.array_equal(again.deep[~inside], enlarge(deep[channels], 2)[~inside])
    assert (again.pixels[inside] == 200).all()
    if channels == 4:
        assert np.array_equal(again.deep[..., 3], enlarge(deep[4][..., 3], 2))


def test_what_would_be_too_large_for_a_file_is_enlarged_less() -> None:
    def sized(height: int, width: int, **changes: Any) -> int:
        pixels = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
        return largest_factor(replace(small, pixels=pixels, **changes), fmt)

    small = decode(saved(Image.fromarray(gradient()), "PNG"))
    fmt: Format = "png"
    assert sized(100, 100) == 4
    assert sized(9_000, 12_000) == 2  # 1.3 GB
    assert sized(9_000, 12_000, deep=np.broadcast_to(np.uint16(0), (9_000, 12_000))) == 2
    assert sized(9_000, 12_000, deep=np.broadcast_to(np.uint16(0), (9_000, 12_000, 3))) == 1  # 2.6 GB
    assert sized(14_000, 14_000) == 1
    fmt = "webp"
    assert sized(100, 5_000) == 2 and sized(100, 10_000) == 1
