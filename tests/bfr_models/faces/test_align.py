"""Alignment: a similarity that brings landmarks to the template, and a crop without aliasing."""

from math import cos, radians, sin

import cv2
import numpy as np
import pytest

from bfr_models.errors import RowError
from bfr_models.faces.align import align, similarity, transform_points, warp
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.faces.types import Matrix, Points
from bfr_models.pixels import Uint8Image


def turned(points: Points, degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    """The points as a camera that is turned, zoomed and moved would see them."""
    c, s = scale * cos(radians(degrees)), scale * sin(radians(degrees))
    return transform_points(points, np.array([(c, -s, shift[0]), (s, c, shift[1])]))


def scale_of(matrix: Matrix) -> float:
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def smooth_photo(height: int, width: int) -> Uint8Image:
    """Waves of some 100 px: nothing in it aliases."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + 1), np.cos(y / 23), np.sin((x + y) / 31)]
    return np.stack([127.5 + 100 * wave for wave in waves], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 30, -90, 180])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_matrix_is_the_similarity_back_to_the_template(degrees: float, scale: float) -> None:
    landmarks = turned(FFHQ_5, degrees, scale, (700, 400))
    matrix = similarity(landmarks, FFHQ_5)
    np.testing.assert_allclose(transform_points(landmarks, matrix), FFHQ_5, atol=1e-3)
    np.testing.assert_allclose([matrix[0, 0], matrix[0, 1]], [matrix[1, 1], -matrix[1, 0]], atol=1e-12)
    assert scale_of(matrix) == pytest.approx(1 / scale, rel=1e-5)


def test_points_survive_the_way_into_the_crop_and_back() -> None:
    landmarks = turned(FFHQ_5, 20, 0.4, (90, 60))
    _, matrix = align(smooth_photo(400, 500), landmarks, FFHQ_5, 256)
    inverse = np.asarray(cv2.invertAffineTransform(matrix), dtype=np.float64)
    np.testing.assert_allclose(transform_points(transform_points(landmarks, matrix), inverse), landmarks)


def test_one_wrong_landmark_does_not_move_the_face() -> None:
    landmarks = FFHQ_5.copy()
    landmarks[2] += 150
    np.testing.assert_allclose(similarity(landmarks, FFHQ_5), np.eye(2, 3), atol=1e-3)


def test_an_aligned_face_stays_as_it_is() -> None:
    face = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    crop, _ = align(face, FFHQ_5, FFHQ_5, 512)
    np.testing.assert_array_equal(crop, face)


def test_framing_of_inexact_landmarks_does_not_depend_on_the_size() -> None:
    landmarks = FFHQ_5 + np.random.default_rng(3).normal(scale=8, size=FFHQ_5.shape)
    framed = transform_points(landmarks, similarity(landmarks, FFHQ_5))
    for size in (32, 128, 2048):
        again = transform_points(landmarks, similarity(landmarks, at_size(FFHQ_5, size)))
        np.testing.assert_allclose(again, at_size(framed, size), atol=1e-3 * size)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_sizes_show_the_same_picture(size: int) -> None:
    photo = smooth_photo(900, 900)
    landmarks = turned(FFHQ_5, 10, 0.8, (200, 150))
    large, _ = align(photo, landmarks, FFHQ_5, 512)
    small, _ = align(photo, landmarks, FFHQ_5, size)
    shrunk = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - shrunk).max() <= 3


def test_a_large_face_does_not_alias() -> None:
    """A fine checkerboard is grey from afar: sampled without care it would be black and white."""
    photo = np.repeat((np.indices((2048, 2048)).sum(axis=0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    crop, _ = align(photo, turned(FFHQ_5, 7, 3.5, (100, 100)), FFHQ_5, 512)
    assert crop[16:-16, 16:-16].std() < 12


def test_a_face_at_the_border_continues_mirrored() -> None:
    photo = smooth_photo(512, 512)
    crop, _ = align(photo, FFHQ_5 - (100, 0), FFHQ_5, 512)
    np.testing.assert_array_equal(crop[:, 100:], photo[:, :412])
    np.testing.assert_array_equal(crop[:, :100], photo[:, 100:0:-1])


def test_a_very_wide_photo_is_no_obstacle() -> None:
    photo = np.zeros((64, 40_000, 3), dtype=np.uint8)
    photo[:, 39_900:] = 200
    crop = warp(photo, np.array([(1.0, 0, -39_920), (0, 1.0, 0)]), 64)
    assert (crop == 200).all()


def test_a_photo_is_not_changed_and_may_be_a_view() -> None:
    photo = smooth_photo(300, 300)
    mirrored, before = photo[:, ::-1], photo.copy()
    crop, _ = align(mirrored, at_size(FFHQ_5, 256), FFHQ_5, 256)
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(crop, mirrored[:256, :256])


@pytest.mark.parametrize(
    "landmarks",
    [np.full((5, 2), 40.0), np.full((5, 2), np.nan), FFHQ_5 * 1e-3, np.where(FFHQ_5 > 300, np.inf, FFHQ_5)],
    ids=["one point", "nan", "collapsed", "infinite"],
)
def test_landmarks_that_span_no_face_reject_the_row(landmarks: Points) -> None:
    with pytest.raises(RowError) as caught:
        align(smooth_photo(64, 64), landmarks, FFHQ_5, 64)
    assert caught.value.code == "bad_landmarks"


def test_another_number_of_landmarks_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"\(5, 2\).*\(4, 2\)"):
        align(smooth_photo(64, 64), FFHQ_5[:4], FFHQ_5, 64)
