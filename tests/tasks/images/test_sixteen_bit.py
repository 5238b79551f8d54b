"""16 bits stay 16 bits wherever a pixel did not change."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from bfr_models.errors import RowError
from tasks.images.codec import decode, encode, notes_on
from tests.tasks.images.samples import SRGB, code_of, deep_file, deep_gradient, opened, saved


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


@pytest.mark.parametrize("alpha", [False, True])
def test_grey_of_16_bits_with_a_profile_for_colours_keeps_both(alpha: bool) -> None:
    grey = deep_gradient()[..., 0]
    picture = decode(deep_file(np.dstack([grey] * 4) if alpha else grey, ".png"))
    if alpha:
        picture = replace(picture, deep=np.dstack([grey, grey]))
    picture.beside.icc = SRGB
    written = encode(picture.pixels, "png", like=picture)
    again = decode(written)
    assert again.icc == SRGB and again.deep is not None
    assert np.array_equal(again.deep[..., :3], np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(again.alpha, picture.alpha) if alpha else again.alpha is None
    assert notes_on(picture, "png", picture.pixels) == ""


def test_what_a_network_draws_anew_has_8_bits_and_says_so() -> None:
    picture = decode(deep_file(deep_gradient(), ".png"))
    enlarged = np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1)
    assert notes_on(picture, "png", enlarged, 2) == ""
    assert notes_on(picture, "png", enlarged, 2, is_redrawn=True) == "the lower 8 of 16 bits left out"


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


def test_a_chunk_that_claims_gigabytes_gets_no_memory() -> None:
    data = bytearray(deep_file(deep_gradient(), ".png"))
    data[33:37] = (0x7F000000 + struct.unpack(">I", data[33:37])[0]).to_bytes(4, "big")
    began = time.thread_time()
    with pytest.raises(RowError, match="IDAT cut off"):
        decode(bytes(data))
    assert time.thread_time() - began < 0.3
