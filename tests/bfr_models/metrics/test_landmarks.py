"""Landmark distances in closed form."""

import numpy as np
import pytest

from bfr_models.metrics.landmarks import landmark_distance


def test_a_shift_is_its_length() -> None:
    a = np.random.default_rng(0).uniform(0, 512, (4, 5, 2))
    shifts = np.array([[0, 0], [3, 4], [-6, 8], [0.5, 0]])
    name, distances = landmark_distance(a, a + shifts[:, None], "dlib_5")
    assert name == "lmd_dlib_5"
    np.testing.assert_allclose(distances, [0, 5, 10, 0.5], atol=1e-12)


def test_one_point_of_five_counts_a_fifth() -> None:
    a = np.zeros((1, 5, 2))
    b = a.copy()
    b[0, 2, 1] = 10
    assert landmark_distance(a, b, "retinaface_5")[1].tolist() == [2]


def test_points_of_another_set_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two \(B, 98, 2\) arrays of wflw_98, got \(1, 5, 2\)"):
        landmark_distance(np.zeros((1, 5, 2)), np.zeros((1, 5, 2)), "wflw_98")
