"""Pasting back: where a face lands, how its edge looks, and what stays as it was."""

from __future__ import annotations

import tracemalloc
from math import cos, radians, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfr_models.faces import paste as module
from bfr_models.faces.align import align, at_scale, warp
from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.faces.paste import COARSE, FEATHER, MARGIN, paste
from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image

SIZE = 128


def framing(scale: float = 1.0, degrees: float = 0.0, corner: tuple[float, float] = (40.0, 30.0)) -> Matrix:
    """photo -> crop, for a face whose crop starts at `corner` and has `scale` crop pixels per photo pixel."""
    c, s = scale * cos(radians(degrees)), scale * sin(radians(degrees))
    linear = np.array([(c, -s), (s, c)])
    shift = (scale - 1) / 2 - linear @ corner
    return np.concatenate([linear, np.reshape(shift, (2, 1))], axis=1)


def places(matrix: Matrix, height: int, width: int, size: int = SIZE) -> np.ndarray:
    """(H, W, 2) where each pixel of the photo lies across the crop: 0 at its first edge, 1 at its last."""
    y, x = np.mgrid[:height, :width]
    return (np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix.T + 0.5) / size


def depth(matrix: Matrix, height: int, width: int, size: int = SIZE) -> np.ndarray:
    """How far each pixel of the photo lies inside the crop, as a share of its side; negative outside."""
    place = places(matrix, height, width, size)
    return np.minimum(place, 1 - place).min(axis=-1)


def noise(height: int, width: int, seed: int = 0) -> Uint8Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def waves(height: int, width: int) -> Uint8Image:
    """Nothing in it is shorter than about 60 px."""
    y, x = np.mgrid[:height, :width]
    parts = [np.sin(x / 11 + 1), np.cos(y / 13), np.sin((x + y) / 19)]
    return np.stack([127.5 + 100 * part for part in parts], axis=-1).round().astype(np.uint8)


def flat(level: int, size: int = SIZE) -> Uint8Image:
    return np.full((size, size, 3), level, np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(0.2, 6.0),
    degrees=st.floats(-180, 180),
    corner=st.tuples(st.floats(-150, 250), st.floats(-150, 250)),
)
def test_pixels_outside_the_mask_are_those_of_the_photo(
    scale: float, degrees: float, corner: tuple[float, float]
) -> None:
    photo, matrix = noise(140, 190), framing(scale, degrees, corner)
    pasted = paste(photo, [(flat(255), matrix, 1.0)])
    outside = depth(matrix, 140, 190) <= MARGIN
    np.testing.assert_array_equal(pasted[outside], photo[outside])
    inside = depth(matrix, 140, 190) >= MARGIN + FEATHER + 1e-6
    assert (pasted[inside] == 255).all()


@pytest.mark.parametrize("scale", [0.25, 1.0, 1.7])
def test_a_face_of_half_the_weight_takes_each_pixel_half_way(scale: float) -> None:
    photo, matrix = noise(300, 300), framing(scale, 20.0)
    pasted = paste(photo, [(flat(100), matrix, 0.5)])
    inside = depth(matrix, 300, 300) >= MARGIN + FEATHER + 1e-6
    assert np.abs(pasted[inside] - (photo[inside] + 100.0) / 2).max() <= 0.51  # rounded once
    outside = depth(matrix, 300, 300) <= MARGIN
    np.testing.assert_array_equal(pasted[outside], photo[outside])


def test_a_photo_is_not_changed_and_without_faces_it_is_the_result() -> None:
    photo = waves(200, 200)
    before = photo.copy()
    assert paste(photo, []) is photo
    assert not np.array_equal(paste(photo, [(flat(0), framing(), 1.0)]), before)
    np.testing.assert_array_equal(photo, before)


def test_without_a_turn_and_at_the_photos_scale_the_middle_is_the_face() -> None:
    face = waves(SIZE, SIZE)
    pasted = paste(noise(200, 220), [(face, framing(), 1.0)])[30 : 30 + SIZE, 40 : 40 + SIZE]
    difference = np.abs(pasted.astype(int) - face)[24:-24, 24:-24]
    assert difference.max() <= 1  # of the filter, which is nearly but not quite flat


@pytest.mark.parametrize("degrees", [0, 25, -100])
@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0, 1.7, 3.0, 8.0])
def test_an_unchanged_crop_changes_a_smooth_photo_by_rounding_only(scale: float, degrees: float) -> None:
    photo = waves(400, 420)
    matrix = framing(scale, degrees, (190 - 30 / scale, 180 + 20 / scale))
    pasted = paste(photo, [(warp(photo, matrix, SIZE), matrix, 1.0)]).astype(int)
    assert np.abs(pasted - photo).max() <= (4 if scale == 0.5 else 2)  # a crop of half the size blurs a little
    assert abs((pasted - photo)[depth(matrix, 400, 420) > MARGIN].mean()) < 0.2  # rounded, not truncated


@pytest.mark.parametrize(("size", "decibels"), [(512, 35), (1024, 35)])
def test_an_unchanged_crop_of_a_real_face_comes_back_in_its_place(
    size: int, decibels: float, hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector
) -> None:
    for photo in (hopper, collins):
        crop, matrix = align(photo, detector.detect(photo)[0].landmarks, detector.template, size)
        pasted = paste(photo, [(crop, matrix, 1.0)])
        inside = depth(matrix, *photo.shape[:2], size) > MARGIN + FEATHER
        error = (pasted.astype(float) - photo)[inside]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > decibels
        slopes = [np.gradient(photo.mean(axis=-1), axis=axis)[inside] for axis in (1, 0)]
        shift, *_ = np.linalg.lstsq(np.stack(slopes, axis=1), -error.mean(axis=-1), rcond=None)
        assert np.abs(shift).max() < 0.01  # px


def test_detail_beyond_the_photos_resolution_does_not_alias() -> None:
    """Stripes of 2.5 px in a crop four times as fine as the photo are grey in the photo."""
    stripes = 127.5 + 120 * np.sin(np.arange(SIZE) * 2 * np.pi / 2.5)
    face = np.repeat(np.tile(stripes, (SIZE, 1))[..., None], 3, axis=2).round().astype(np.uint8)
    matrix = framing(4.0, 10, (20, 20))
    pasted = paste(np.full((80, 80, 3), 127, np.uint8), [(face, matrix, 1.0)])
    assert pasted[depth(matrix, 80, 80) > MARGIN + FEATHER].std() < 3


def test_a_face_much_coarser_than_the_photo_needs_no_filter(
    monkeypatch: pytest.MonkeyPatch, hopper: Uint8Image, detector: DlibDetector
) -> None:
    """It saves three quarters of the time, and changes half a grey level (RMS) beside what rounding does."""
    face, _ = align(hopper, detector.detect(hopper)[0].landmarks, detector.template, 256)
    photo, matrix = waves(600, 600), framing(0.99 * COARSE * SIZE / 256, 12, (110, 90))
    at_face = at_scale(matrix, 256 / SIZE)
    pasted = paste(photo, [(face, at_face, 1.0)]).astype(float)
    monkeypatch.setattr(module, "COARSE", 0.0)
    filtered = paste(photo, [(face, at_face, 1.0)]).astype(float)
    inside = depth(at_face, 600, 600, 256) > MARGIN + FEATHER
    assert inside.sum() > 30_000
    assert 0 < np.mean((pasted - filtered)[inside] ** 2) < 0.5**2 + 2 / 12  # two roundings


def test_the_edge_is_soft() -> None:
    pasted = paste(np.zeros((400, 400, 3), np.uint8), [(flat(200), framing(0.5), 1.0)])
    steps = np.abs(np.diff(pasted[..., 0].astype(int), axis=1))
    width = FEATHER * SIZE / 0.5
    assert steps.max() <= 1.5 * 200 / width + 1  # the steepest place of a smooth step


def test_the_first_face_lies_on_top_where_two_overlap() -> None:
    photo = np.full((200, 300, 3), 90, np.uint8)
    left, right = framing(corner=(30, 30)), framing(corner=(90, 30))
    pasted = paste(photo, [(flat(10), left, 1.0), (flat(240), right, 1.0)])
    on_left = depth(left, 200, 300) >= MARGIN + FEATHER
    assert (pasted[on_left] == 10).all()
    assert pasted[94, 180, 0] == 240
    both = paste(photo, [(flat(240), right, 1.0), (flat(10), left, 1.0)])
    assert not np.array_equal(pasted, both)
    np.testing.assert_array_equal(pasted, paste(photo, [(flat(10), left, 1.0), (flat(240), right, 1.0)]))


def test_faces_that_do_not_touch_may_come_in_any_order() -> None:
    photo = noise(200, 400)
    faces = [(flat(level), framing(corner=(corner, 20)), 1.0) for level, corner in ((10, 5), (100, 140), (200, 270))]
    np.testing.assert_array_equal(paste(photo, faces), paste(photo, faces[::-1]))


@pytest.mark.parametrize("corner", [(-64.0, 10.0), (250.0, 150.0), (-60.0, -60.0)])
def test_a_face_over_the_border_is_cut_off_there(corner: tuple[float, float]) -> None:
    photo = waves(260, 320)
    matrix = framing(corner=corner)
    pasted = paste(photo, [(warp(photo, matrix, SIZE), matrix, 1.0)])
    assert pasted.shape == photo.shape and np.abs(pasted.astype(int) - photo).max() <= 2


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize(("scale", "degrees", "corner"), [(0.85, -12, (-59, 44)), (1.48, -13, (-63, 11))])
def test_a_face_that_the_border_cuts_off_reaches_it(
    scale: float, degrees: float, corner: tuple[float, float], turn: int
) -> None:
    """Framings whose outline, cut off at the photo's first column, is rounded to lie behind it."""
    matrix = framing(scale, degrees, corner)
    for _ in range(turn):  # the photo a quarter to the right: (x, y) was (y, last - x)
        matrix = matrix @ np.array([(0, 1, 0), (-1, 0, 399), (0, 0, 1)])
    pasted = paste(noise(400, 400), [(flat(255), matrix, 1.0)])
    assert (pasted[depth(matrix, 400, 400) >= MARGIN + FEATHER + 1e-6] == 255).all()


def test_a_face_beyond_the_photo_changes_nothing() -> None:
    photo = noise(60, 60)
    for corner in ((500, 0), (0, 500), (-500, -500)):
        np.testing.assert_array_equal(paste(photo, [(flat(0), framing(corner=corner), 1.0)]), photo)


def test_a_grey_face_in_a_grey_photo_gives_a_grey_photo() -> None:
    photo, face = (np.repeat(noise(side, side, side)[..., :1], 3, axis=2) for side in (200, SIZE))
    assert np.ptp(paste(photo, [(face, framing(1.3, 20), 1.0)]), axis=2).max() == 0


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_bands_leave_no_trace(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, face, matrix = noise(300, 300), noise(SIZE, SIZE, 1), framing(scale, 15, (60, 40))
    whole = paste(photo, [(face, matrix, 1.0)])
    monkeypatch.setattr(module, "BAND_PIXELS", 1000)
    banded = paste(photo, [(face, matrix, 1.0)])
    assert np.abs(whole.astype(int) - banded).max() <= 1
    assert (whole != banded).mean() < 1e-3


def test_a_face_that_fills_a_large_scan_takes_little_memory_beside_the_result() -> None:
    photo = np.zeros((3000, 4000, 3), np.uint8)
    tracemalloc.start()
    pasted = paste(photo, [(flat(200), framing(SIZE / 3900, 3, (50, -400)), 1.0)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pasted[1500, 2000, 0] == 200
    assert peak < photo.nbytes + 100 * 2**20  # in float the face's area alone would be 170 MiB
