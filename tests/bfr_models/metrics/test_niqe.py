"""NIQE is BasicSR's, to the rounding of float32; where there is none it says why."""

from typing import Any

import numpy as np
import pytest

from bfr_models.metrics.niqe import Colour, niqe
from bfr_models.pixels import Uint8Image


def textured(seed: int, height: int, width: int) -> Uint8Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8).astype(np.int64)
    return (sum(np.roll(noise, shift, (0, 1)) for shift in ((0, 0), (1, 0), (0, 1), (1, 1))) // 4).astype(np.uint8)


@pytest.mark.parametrize(
    ("seed", "height", "width", "expected"),
    [(0, 200, 300, 9.810506266291538), (1, 288, 96, 11.238221616613632), (2, 512, 512, 9.517317017637667)],
)
def test_the_score_is_that_of_basicsr(seed: int, height: int, width: int, expected: float) -> None:
    """The expected numbers are those of `calculate_niqe` of basicsr 1.4.2 for these pictures."""
    assert niqe(textured(seed, height, width)).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("colour", "expected"), [("y", 2.625524381291432), ("gray", 2.572083313990127)])
def test_the_score_of_a_photo_is_that_of_basicsr(colour: Colour, expected: float) -> None:
    data = pytest.importorskip("skimage.data")
    assert niqe(data.chelsea(), colour).value == pytest.approx(expected, rel=1e-5)


def test_a_photo_is_more_natural_than_its_ruins() -> None:
    data = pytest.importorskip("skimage.data")
    photo = data.chelsea()
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
    blocky = np.repeat(np.repeat(photo[::8, ::8], 8, axis=0), 8, axis=1)
    scores = [niqe(image).value for image in (photo, noisy, blocky)]
    assert scores[0] is not None and scores[0] < min(value for value in scores[1:] if value is not None)


@pytest.mark.parametrize("shape", [(96, 96), (191, 191), (95, 1000), (1, 1)])
def test_a_small_picture_has_none(shape: tuple[int, int]) -> None:
    score = niqe(textured(0, *shape))
    assert score.value is None and f"{shape[1]} x {shape[0]} px" in str(score.why)


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_a_flat_picture_has_none(level: int) -> None:
    score = niqe(np.full((300, 300, 3), level, dtype=np.uint8))
    assert score.value is None and "flat" in str(score.why)


def test_one_block_with_texture_is_not_enough_and_two_are() -> None:
    image: Any = np.full((192, 288, 3), 77, dtype=np.uint8)
    image[:96, :96] = textured(0, 96, 96)
    assert niqe(image).value is None
    image[96:, 192:] = textured(1, 96, 96)
    assert niqe(image).value is not None


def test_flat_borders_of_any_level_give_a_finite_score() -> None:
    for level in (0, 16, 17, 255):
        image = np.full((384, 384, 3), level, dtype=np.uint8)
        image[40:340, 40:340] = textured(0, 300, 300)
        value = niqe(image).value
        assert value is not None and np.isfinite(value)
