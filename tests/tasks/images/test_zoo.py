"""What wrote a file says what is in it: read back, every level is the one that went in."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tasks.images.codec import DecodedImage, decode, encode
from tests.tasks.images.samples import code_of, opened, saved
from tests.zoo import DEEP, FLAT, Animal, Levels, odd_tiffs, others, pngs, tiff, tiffs


def wrong(animal: Animal) -> str:
    """How a file is misread; "" if it is not."""
    image = decode(animal.data)
    colours = animal.levels
    if colours.dtype == np.uint16:
        if image.deep is None:
            return "has no 16 bits"
        count = 1 if colours.ndim == 2 else 3
        found: Levels = image.deep if image.deep.ndim == 2 else np.squeeze(image.deep[..., :count])
        alpha = None if animal.alpha is None else image.deep[..., -1]
    else:
        found, alpha = image.pixels, image.alpha
        colours = np.repeat(colours[..., None], 3, axis=2) if colours.ndim == 2 else colours
    if found.shape != colours.shape:
        return f"has the shape {found.shape}"
    if (off := int(np.abs(found.astype(int) - colours).max())) > animal.slack:
        return f"is off by {off}"
    if animal.alpha is None:
        return "" if image.alpha is None else "has alpha"
    return "" if alpha is not None and np.array_equal(alpha, animal.alpha) else "has another alpha"


def some_tiffs() -> Iterator[Animal]:
    """Each 13th: a number that shares no factor with those of the grid, so that every value of each kind occurs."""
    return tiffs(13)


@pytest.mark.parametrize(
    ("some", "count"),
    [(some_tiffs, 49), (odd_tiffs, 36), (pngs, 52), (others, 16), pytest.param(tiffs, 640, marks=pytest.mark.long)],
)
def test_every_level_is_the_one_that_went_in(some: Callable[[], Iterator[Animal]], count: int) -> None:
    found = {animal.name: wrong(animal) for animal in some()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert len(found) == count


def test_all_of_it_survives_being_written_again() -> None:
    for animal in [*tiffs(41), *odd_tiffs(), *pngs(), *others()]:
        before = decode(animal.data)
        after = decode(encode(before.pixels, "png", like=before))
        for name in ("pixels", "alpha", "deep"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), animal.name


def test_alpha_that_is_multiplied_into_the_colours_is_taken_out_of_them() -> None:
    for source, top in ((FLAT, 255), (DEEP, 65535)):
        alpha = source[..., 0]
        multiplied = ((source.astype(np.uint64) * alpha[..., None] + top // 2) // top).astype(source.dtype)
        image = decode(tiff(np.dstack([multiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"]))
        found, seen = _colours(image), image.alpha if top == 255 else image.deep[..., 3]  # type: ignore[index]
        assert np.array_equal(seen, alpha)
        assert np.array_equal((found.astype(np.uint64) * alpha[..., None] + top // 2) // top, multiplied)
        assert any("alpha" in note for note in image.beside.notes)


def _colours(image: DecodedImage) -> Levels:
    return image.pixels if image.deep is None else image.deep[..., :3]


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({"photometric": "rgb"}, FLAT.astype(np.float32) / 255),
        ({"photometric": "rgb"}, (FLAT / 255).astype(np.float16)),
        ({"photometric": "minisblack"}, DEEP[..., 0].astype(np.int16)),
        ({"photometric": "minisblack"}, DEEP[..., 0].astype(np.uint32)),
        ({"photometric": "minisblack", "volumetric": True}, FLAT[..., 0].reshape(3, 15, 70)),
        ({"photometric": "rgb", "compression": "lzma"}, FLAT),
        ({"photometric": "cfa"}, DEEP[..., 0]),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(options: dict[str, object], levels: Levels) -> None:
    tifffile.imwrite(file := io.BytesIO(), levels, metadata=None, **options)  # type: ignore[arg-type]
    assert code_of(file.getvalue()) == "undecodable"


LUMA = (np.arange(64).reshape(8, 8) * 3 + 20).astype(np.uint8)


def _ycbcr(data: bytes, compression: int, sampling: tuple[int, int], orientation: int) -> bytes:
    """A TIFF of 8 x 8 px in YCbCr, by the letter of TIFF 6.0: no library here writes one without JPEG."""
    entries = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 182), (259, 3, 1, compression), (262, 3, 1, 6), (273, 4, 1, 236),
        (274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, len(data)), (284, 3, 1, 1),
        (530, 3, 2, sampling[0] | sampling[1] << 16), (531, 3, 1, 1), (532, 5, 6, 188),
    ]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    values = struct.pack("<3H12I", 8, 8, 8, 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + values + data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (2, 2)])
def test_sampled_colours_without_jpeg_are_read(sampling: tuple[int, int], compression: int, orientation: int) -> None:
    across, down = sampling
    blocks = (LUMA[y : y + down, x : x + across] for y in range(0, 8, down) for x in range(0, 8, across))
    data = b"".join(block.tobytes() + bytes([128, 128]) for block in blocks)
    packed = {1: bytes, 5: imagecodecs.lzw_encode, 8: imagecodecs.zlib_encode}[compression](data)
    image = decode(_ycbcr(packed, compression, sampling, orientation))
    upright = ImageOps.exif_transpose(_with_orientation(orientation))
    assert np.array_equal(image.pixels[..., 0], np.asarray(upright))
    assert image.grey


def _with_orientation(orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[274] = orientation
    return opened(saved(Image.fromarray(LUMA), "PNG", exif=exif))
