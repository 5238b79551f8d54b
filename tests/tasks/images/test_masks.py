"""Holes at other sizes: none is lost, and on whole blocks it is plain nearest neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bfr_models.errors import RowError
from tasks.images.masks import InpaintMask, fill, holes_at, holes_of

ANY_HOLES = arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def sources(place: int, length: int, before: int) -> range:
    """The pixels, of `before` along a side, that one of `length` shows: all that it overlaps, or the nearest."""
    if length > before:
        nearest = (2 * place + 1) * before // (2 * length)
        return range(nearest, nearest + 1)
    return range(place * before // length, -(-(place + 1) * before // length))


@given(ANY_HOLES, st.integers(1, 60), st.integers(1, 60))
def test_a_pixel_is_a_hole_if_any_that_it_shows_is_one(holes: InpaintMask, height: int, width: int) -> None:
    ys, xs = ([sources(i, n, m) for i in range(n)] for n, m in zip((height, width), holes.shape, strict=True))
    expected = [[holes[y.start : y.stop, x.start : x.stop].any() for x in xs] for y in ys]
    np.testing.assert_array_equal(holes_at(holes, (height, width)), expected)


@given(ANY_HOLES, st.integers(1, 5))
def test_on_whole_blocks_it_is_nearest_neighbour_and_goes_back(holes: InpaintMask, factor: int) -> None:
    height, width = holes.shape
    blocks = holes.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(holes_at(holes, blocks.shape), blocks)
    np.testing.assert_array_equal(holes_at(blocks, (height, width)), holes)


def test_a_scratch_of_one_pixel_survives_being_shrunk_tenfold() -> None:
    holes = np.zeros((1000, 1000), bool)
    holes[503] = True
    found = holes_at(holes, (100, 100))
    assert found[50].all() and found.sum() == 100


FITTING = ((100, 150), (50, 75), (67, 100), (200, 300))
OTHERS = ((150, 100), (100, 153), (67, 98))


@pytest.mark.parametrize(("shape", "fits"), [(s, True) for s in FITTING] + [(s, False) for s in OTHERS])
def test_a_mask_has_the_shape_of_its_picture_to_the_pixel(shape: tuple[int, int], fits: bool) -> None:
    mask = np.full((*shape, 3), 255, np.uint8)
    if fits:
        assert holes_of(mask, (100, 150)).all()
    else:
        with pytest.raises(RowError, match="expected the shape of 150 x 100"):
            holes_of(mask, (100, 150))


def test_a_face_is_brought_to_the_pictures_size_where_it_fills_holes() -> None:
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)
    face = np.broadcast_to(ramp[None, :, None], (16, 16, 3))
    holes = np.zeros((48, 48), bool)
    holes[10:20] = True
    filled = fill(np.zeros((48, 48, 3), np.uint8), holes, np.ascontiguousarray(face))
    assert not filled[~holes].any()
    expected = np.interp((np.arange(48) + 0.5) / 3 - 0.5, np.arange(16), ramp)
    np.testing.assert_allclose(filled[15, 6:-6, 0], expected[6:-6], atol=2)
