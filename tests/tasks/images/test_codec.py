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
from tasks.images.codec import Format, decode, encode
from tasks.images.metadata import MAX_FRAMES

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


@pytest.mark.parametrize("fmt", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_and_none_is_clipped(channels: int, fmt: str) -> None:
    deep = deep_gradient()
    deep[0, 0], deep[0, 1] = 0, 65535
    deep = {1: deep[..., 0], 3: deep, 4: np.dstack([deep, deep[..., 1]])}[channels]
    picture = decode(deep_file(deep, fmt))
    assert picture.bit_depth == 16
    assert np.array_equal(picture.deep, deep)
    levels = deep[..., None] if channels == 1 else deep[..., :3]
    assert np.abs(levels / 257 - picture.pixels).max() <= 0.5
    assert picture.grey == (channels == 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_that_did_not_change_keep_their_16_bits(channels: int) -> None:
    deep = {1: deep_gradient()[..., 0], 3: deep_gradient(), 4: np.dstack([deep_gradient(), deep_gradient()[..., 1]])}
    picture = decode(deep_file(deep[channels], ".png"))
    restored = picture.pixels.copy()
    restored[2:5, 3:9] = 200
    again = decode(encode(restored, "png", like=picture))
    assert again.deep is not None
    assert picture.deep is not None
    inside = np.zeros(restored.shape[:2], bool)
    inside[2:5, 3:9] = True
    assert np.array_equal(again.deep[~inside], picture.deep[~inside])
    assert (again.pixels[inside] == 200).all()
    assert np.array_equal(again.alpha, picture.alpha) if channels == 4 else again.alpha is None


def test_white_is_zero_holds_for_16_bits_as_for_8() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    data = saved(Image.fromarray(ramp), "TIFF", tiffinfo=tags)
    assert opened(data).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert np.array_equal(decode(data).deep, 65535 - ramp)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused_rather_than_guessed(mode: str) -> None:
    assert code_of(saved(Image.new(mode, (8, 8)), "TIFF")) == "undecodable"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_stays_grey(mode: str) -> None:
    picture = decode(saved(Image.fromarray(gradient()).convert("L").convert(mode), "PNG"))
    assert picture.grey
    tinted = picture.pixels.copy()
    tinted[..., 0] //= 2
    for fmt, mode_out in (("png", "L"), ("jpeg", "L"), ("webp", "RGB")):
        written = opened(encode(tinted, fmt, like=picture))  # type: ignore[arg-type]
        assert written.mode == mode_out
        assert np.ptp(np.asarray(written.convert("RGB")).astype(int), axis=2).max() <= (2 if fmt == "webp" else 0)
    assert np.array_equal(decode(encode(picture.pixels, "png", like=picture)).pixels, picture.pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_comes_back_and_stored_colours_are_not_blended(mode: str) -> None:
    rgba = np.dstack([gradient(), gradient()[..., 0]])
    image = Image.fromarray(rgba).convert("LA") if mode == "LA" else Image.fromarray(rgba)
    if mode == "P":
        image = image.quantize(64, Image.Quantize.FASTOCTREE)
    data = saved(image, "PNG")
    expected = np.asarray(opened(data).convert("RGBA"))
    picture = decode(data)
    assert np.array_equal(picture.pixels, expected[..., :3])
    assert np.array_equal(picture.alpha, expected[..., 3])
    assert np.array_equal(np.asarray(opened(encode(picture.pixels, "png", like=picture)).convert("RGBA")), expected)
    assert opened(encode(picture.pixels, "jpeg", like=picture)).mode in ("RGB", "L")


def test_cmyk_becomes_rgb_and_its_profile_stays_behind() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for options in ({}, {"icc_profile": SRGB[:16] + b"CMYK" + SRGB[20:]}, {"icc_profile": b"junk"}):
        picture = decode(saved(red, "TIFF", **options))
        assert np.abs(picture.pixels.astype(int) - [255, 0, 0]).max() < 40
        assert picture.icc is None
    assert np.abs(decode(saved(red, "JPEG", quality=95)).pixels.astype(int) - [255, 0, 0]).max() < 40


def test_of_several_frames_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    for fmt in ("GIF", "TIFF", "WEBP", "PNG"):
        options: dict[str, Any] = {"lossless": True} if fmt == "WEBP" else {}
        picture = decode(saved(frames[0], fmt, save_all=True, append_images=frames[1:], **options))
        assert (picture.n_frames, picture.format) == (3, fmt)
        assert (picture.pixels == [255, 0, 0]).all()


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


def test_png_is_deterministic_and_exact() -> None:
    written = encode(gradient())
    assert written == encode(gradient())
    assert np.array_equal(decode(written).pixels, gradient())


@pytest.mark.parametrize(("fmt", "width"), [("webp", 16384), ("jpeg", 65501)])
def test_a_format_without_room_is_said(fmt: Format, width: int) -> None:
    with pytest.raises(RowError, match="use png") as caught:
        encode(np.zeros((4, width, 3), np.uint8), fmt)
    assert caught.value.code == "too_large"


def _huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _huge_bmp() -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + info + bytes(100)


@pytest.mark.parametrize("data", [_huge_png(), _huge_bmp()], ids=["png", "bmp"])
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    began = time.perf_counter()
    assert code_of(data) == "too_large"
    assert time.perf_counter() - began < 1


def test_a_chunk_that_claims_gigabytes_gets_no_memory() -> None:
    data = bytearray(deep_file(deep_gradient(), ".png"))
    data[33:37] = (0x7F000000 + struct.unpack(">I", data[33:37])[0]).to_bytes(4, "big")
    began = time.perf_counter()
    picture = decode(bytes(data))
    assert time.perf_counter() - began < 0.3
    assert (picture.bit_depth, picture.deep) == (16, None)  # the upper 8 bits, which Pillow reads


def test_the_limit_is_the_callers() -> None:
    with pytest.raises(RowError, match="32 x 24") as caught:
        decode(encode(gradient()), max_pixels=32 * 24 - 1)
    assert caught.value.code == "too_large"
    assert decode(encode(gradient()), max_pixels=32 * 24).n_frames == 1


@pytest.mark.parametrize(("data", "code"), [
    (None, "missing"),
    (b"", "missing"),
    (b"The quick brown fox" * 20, "undecodable"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "undecodable"),
    (b"8BPS" + bytes(100), "undecodable"),
    (b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", "undecodable"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(data: bytes | None, code: str) -> None:
    assert code_of(data) == code


def test_exotic_formats_are_not_tried() -> None:
    for fmt in ("PCX", "ICO", "TGA", "PPM", "JPEG2000"):
        assert code_of(saved(Image.fromarray(gradient()), fmt)) == "undecodable"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_picture_is_refused(fmt: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), fmt)
    assert code_of(data[: len(data) // 2]) == "undecodable"


def test_one_pixel_is_too_small() -> None:
    assert code_of(encode(np.zeros((1, 1, 3), np.uint8))) == "too_small"
    assert code_of(encode(np.zeros((64, 3, 3), np.uint8))) == "too_small"


def test_a_list_of_pages_without_end_is_counted_only_so_far() -> None:
    """100,000 directories of one page each: counting them all takes Pillow minutes."""
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 8), (279, 4, 64)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    size = 2 + len(entries) + 4
    chain = (struct.pack("<H", len(tags)) + entries + struct.pack("<I", 72 + size * i) for i in range(1, 100_001))
    data = b"II*\0" + struct.pack("<I", 72) + bytes(64) + b"".join(chain)
    began = time.perf_counter()
    assert decode(data).n_frames == MAX_FRAMES
    assert time.perf_counter() - began < 5


def _mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 4, 30))):
        place = rng.randrange(min(len(out), rng.choice((64, 400, len(out)))))
        out[place] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
    kind = rng.random()
    if kind < 0.2:
        del out[rng.randrange(len(out)) :]
    elif kind < 0.3:
        place = rng.randrange(len(out))
        out[place:place] = rng.randbytes(rng.randrange(1, 40))
    return bytes(out)


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_are_pictures_or_row_errors_and_never_anything_else() -> None:
    picture, rng = Image.fromarray(gradient()), random.Random(7)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    whole = [saved(picture, fmt, exif=exif, icc_profile=SRGB) for fmt in ("JPEG", "PNG", "WEBP", "TIFF")]
    whole += [saved(picture, "BMP"), saved(picture.quantize(16), "GIF"), saved(picture, "TIFF", compression="jpeg")]
    whole += [saved(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]), saved(picture, "WEBP")]
    whole += [saved(picture, "TIFF", compression="tiff_lzw", save_all=True, append_images=[picture])]
    whole += [
        deep_file(deep_gradient(), ".png"),
        deep_file(deep_gradient(), ".tiff"),
        saved(picture, "JPEG", progressive=True),
    ]
    whole += [saved(picture.convert("CMYK"), "JPEG"), saved(picture.convert("LA"), "PNG")]
    good, slowest, errors = 0, 0.0, []
    for number in range(450):
        data = _mutated(whole[number % len(whole)], rng)
        began = time.perf_counter()
        try:
            pixels = decode(data, max_pixels=20_000_000).pixels
            assert pixels.ndim == 3
            assert pixels.dtype == np.uint8
            good += 1
        except RowError as error:
            errors.append(error)
        slowest = max(slowest, time.perf_counter() - began)
    assert {error.code for error in errors} <= {"undecodable", "too_large", "too_small"}
    assert not any("0x" in error.detail for error in errors)  # an address would make two runs differ
    assert 50 < good < 400  # the damage is neither fatal nor harmless each time
    assert slowest < 3
