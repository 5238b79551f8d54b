"""Grey, alpha and CMYK: what becomes of channels that are not red, green and blue."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tasks.images.codec import decode, encode
from tests.tasks.images.samples import SRGB, gradient, opened, saved


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
