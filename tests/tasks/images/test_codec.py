"""Decodes every kind of image an archive may hold; anything else is a RowError."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bfr_models.errors import RowError
from tasks.images.codec import Format, decode, encode
from tests import support
from tests.hostile_images import bombs, with_scans
from tests.tasks.images.samples import SRGB, code_of, deep_file, deep_gradient, gradient, saved


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


def test_of_several_frames_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    for fmt in ("GIF", "TIFF", "WEBP", "PNG"):
        options: dict[str, Any] = {"lossless": True} if fmt == "WEBP" else {}
        picture = decode(saved(frames[0], fmt, save_all=True, append_images=frames[1:], **options))
        assert (picture.n_frames, picture.format) == (3, fmt)
        assert (picture.pixels == [255, 0, 0]).all()


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
    began = time.thread_time()
    assert code_of(data) == "too_large"
    assert time.thread_time() - began < 1


def test_the_limit_is_the_callers() -> None:
    with pytest.raises(RowError, match="32 x 24") as caught:
        decode(encode(gradient()), max_pixels=32 * 24 - 1)
    assert caught.value.code == "too_large"
    assert decode(encode(gradient()), max_pixels=32 * 24).n_frames == 1


@pytest.mark.parametrize(("data", "code"), [
    (None, "missing"),
    (b"", "undecodable"),
    (b"The quick brown fox" * 20, "undecodable"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "undecodable"),
    (b"8BPS" + bytes(100), "undecodable"),
    (b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", "undecodable"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(data: bytes | None, code: str) -> None:
    assert code_of(data) == code


def test_exotic_formats_are_not_tried() -> None:
    for fmt in ("PCX", "ICO", "TGA", "PPM", "SGI"):
        assert code_of(saved(Image.fromarray(gradient()), fmt)) == "undecodable"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_picture_is_refused(fmt: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), fmt)
    assert code_of(data[: len(data) // 2]) == "undecodable"


@pytest.mark.parametrize("error", [MemoryError, ImportError])
def test_what_is_wrong_with_the_machine_is_not_written_down_as_the_pictures_fault(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("tasks.images.readers.read", fail)
    with pytest.raises(error):
        decode(saved(Image.new("RGB", (8, 8)), "PNG"))


def test_one_pixel_is_too_small() -> None:
    assert code_of(encode(np.zeros((1, 1, 3), np.uint8))) == "too_small"
    assert code_of(encode(np.zeros((64, 3, 3), np.uint8))) == "too_small"


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
        began = time.thread_time()
        try:
            pixels = decode(data, max_pixels=20_000_000).pixels
            assert pixels.ndim == 3
            assert pixels.dtype == np.uint8
            good += 1
        except RowError as error:
            errors.append(error)
        slowest = max(slowest, time.thread_time() - began)
    assert {error.code for error in errors} <= {"undecodable", "too_large", "too_small"}
    assert not any("0x" in error.detail for error in errors)  # an address would make two runs differ
    assert 50 < good < 400  # the damage is neither fatal nor harmless each time
    assert slowest < 3


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_beside_the_pixels_is_not_inflated(name: str) -> None:
    data = bombs()[name]
    tracemalloc.start()
    picture = decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25
    assert picture.pixels.shape == (support.SIDE, support.SIDE, 3)
    assert len(picture.beside.notes) == 1 and picture.beside.notes[0].endswith("damaged or too large left out")


def test_a_jpeg_has_at_most_a_hundred_scans() -> None:
    assert decode(with_scans(100)).pixels.shape == (support.SIDE, support.SIDE, 3)
    with pytest.raises(RowError, match="undecodable: expected a JPEG of at most 100 scans"):
        decode(with_scans(101))


def test_fill_and_junk_between_the_scans_hide_none() -> None:
    """What decoders skip: bytes that are not a marker, and any number of FF before one."""
    with pytest.raises(RowError, match="at most 100 scans"):
        decode(with_scans(400).replace(b"\xff\xda", b"junk\xff\0\xff\xff\xff\xda"))


def test_what_lies_in_a_segment_or_behind_the_end_of_a_jpeg_is_no_scan() -> None:
    """A thumbnail, or the video of a motion photo."""
    jpeg, scans = support.encoded(support.portrait(2), "jpeg"), b"\xff\xda\0\2" * 400
    comment = b"\xff\xfe" + struct.pack(">H", len(scans) + 2) + scans
    assert decode(jpeg[:2] + comment + jpeg[2:] + scans).pixels.shape == (support.SIDE, support.SIDE, 3)


def test_segments_without_end_are_not_walked_for_ever() -> None:
    jpeg = with_scans(400)
    start = jpeg.index(b"\xff\xda")
    with pytest.raises(RowError, match="at most 100 scans and 10000 segments"):
        decode(jpeg[:start] + b"\xff\xfe\0\2" * 20_000 + jpeg[start:])


def test_what_is_no_picture_does_not_show_in_the_reason() -> None:
    """Whoever chose its address would read what only this machine can."""
    with pytest.raises(RowError) as refused:
        decode(b"AccessKeyId: secret")
    assert refused.value.detail.endswith("found 19 bytes of something else")
