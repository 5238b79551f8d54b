"""Orientation is applied once; profile, EXIF and resolution travel with the pixels."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from tasks.images.codec import Format, decode, encode
from tasks.images.exif_block import upright_xmp
from tasks.images.limits import MAX_FRAMES
from tests.tasks.images.samples import GREY, SRGB, deep_file, deep_gradient, gradient, opened, saved


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
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    flat = decode(saved(Image.fromarray(((rgba.astype(int) + 128) // 257).astype(np.uint8)), "PNG", exif=exif))
    deep = decode(_with_exif(deep_file(rgba, ".png"), exif))
    assert np.array_equal(deep.pixels, flat.pixels)
    assert np.array_equal(deep.alpha, flat.alpha)
    assert deep.deep is not None
    assert np.abs(deep.deep[..., :3] / 257 - flat.pixels).max() <= 0.5


def _with_exif(png: bytes, exif: Image.Exif) -> bytes:
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


@pytest.mark.parametrize(("orientation", "dpi"), [(1, (204, 98)), (3, (204, 98)), (6, (98, 204)), (8, (98, 204))])
@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_a_resolution_turns_with_the_picture(fmt: str, orientation: int, dpi: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 204, 98
    below = exif.get_ifd(ExifTags.IFD.Exif)
    image = Image.fromarray(gradient())
    below[ExifTags.Base.ExifImageWidth], below[ExifTags.Base.ExifImageHeight] = image.size
    picture = decode(saved(image, fmt, exif=exif, dpi=(204, 98)))
    assert picture.dpi == pytest.approx(dpi)
    written = opened(encode(picture.pixels, "jpeg", like=picture))
    assert written.info["dpi"] == pytest.approx(dpi, abs=1)
    if fmt == "JPEG":
        found = written.getexif()
        assert (found[ExifTags.Base.XResolution], found[ExifTags.Base.YResolution]) == dpi
        sizes = found.get_ifd(ExifTags.IFD.Exif)
        width, height = sizes[ExifTags.Base.ExifImageWidth], sizes[ExifTags.Base.ExifImageHeight]
        assert (width, height) == written.size


@pytest.mark.parametrize("piece", [b"<xmp:Thumbnails ", b"<xmp:Thumbnails>", b"<GDepth:Data>", b" GDepth:Data='\""])
def test_xmp_of_things_without_an_end_is_read_in_no_time(piece: bytes) -> None:
    """It was looked through to its end from each of them: a picture of 667 bytes took minutes."""
    xmp = (2**20 // len(piece)) * piece
    began = time.process_time()
    upright_xmp(xmp)
    assert time.process_time() - began < 5


def test_xmp_that_shows_the_old_picture_goes_and_all_else_stays() -> None:
    xmp = (
        b"<a GDepth:Near='1' b='2'><GDepth:Data x='>'/>1<GDepth:Data>old</GDepth:Data>2<GDepth:Far>3<xmp:Thumbnails>"
        b"<xmp:Thumbnails>old</xmp:Thumbnails>4<tiff:Orientation>6</tiff:Orientation><xmp:ThumbnailsOf>5</a>"
    )
    left = b"<a b='2'>12<GDepth:Far>34<tiff:Orientation>1</tiff:Orientation><xmp:ThumbnailsOf>5</a>"
    assert upright_xmp(xmp) == (left, ["a map of depths"])


@pytest.mark.parametrize("fmt", ["png", "webp", "jpeg"])
def test_profile_exif_and_resolution_come_along(fmt: Format) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "public domain"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "50 mm"
    data = saved(Image.fromarray(gradient()), "JPEG", icc_profile=SRGB, exif=exif, dpi=(300, 300))
    picture = decode(data)
    assert picture.exif == opened(data).info["exif"]
    written = opened(encode(np.zeros((64, 64, 3), np.uint8), fmt, like=picture))
    assert written.info["icc_profile"] == SRGB
    assert written.getexif()[ExifTags.Base.Copyright] == "public domain"
    assert written.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "50 mm"
    if fmt != "webp":  # which has no place for it
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_metadata_comes_along_with_16_bits_and_from_a_tiff() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ExifTags.Base.Artist] = "Ada"
    ramp = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    picture = decode(saved(ramp, "TIFF", tiffinfo=tags, icc_profile=GREY, dpi=(200, 100)))
    written = opened(encode(picture.pixels, "png", like=picture))
    assert written.mode == "I;16"
    assert written.info["icc_profile"] == GREY
    assert written.info["dpi"] == pytest.approx((200, 100), abs=0.1)
    assert dict(written.getexif()) == {ExifTags.Base.Artist: "Ada"}


def test_a_profile_for_colours_keeps_a_grey_picture_in_colours() -> None:
    grey = Image.fromarray(gradient()).convert("L").convert("RGB")
    picture = decode(saved(grey, "PNG", icc_profile=SRGB))
    written = opened(encode(picture.pixels, "png", like=picture))
    assert (written.mode, written.info["icc_profile"]) == ("RGB", SRGB)
    assert np.array_equal(np.asarray(written), picture.pixels)


def test_a_list_of_pages_without_end_is_counted_only_so_far() -> None:
    """100,000 directories of one page each, which Pillow would take minutes to count."""
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 8), (279, 4, 64)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    size = 2 + len(entries) + 4
    chain = (struct.pack("<H", len(tags)) + entries + struct.pack("<I", 72 + size * i) for i in range(1, 100_001))
    data = b"II*\0" + struct.pack("<I", 72) + bytes(64) + b"".join(chain)
    began = time.thread_time()
    assert decode(data).n_frames == MAX_FRAMES
    assert time.thread_time() - began < 5
