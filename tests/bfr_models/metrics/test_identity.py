"""Cosine and angle of identity vectors, down to the smallest angles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfr_models.metrics.identity import angle_degrees, cosine


def unit_vectors(n: int, d: int = 128, seed: int = 0) -> NDArray[np.float64]:
    vectors: NDArray[np.float64] = np.random.default_rng(seed).normal(size=(n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def at_angle(radians: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([[1.0, 0.0, 0.0]]), np.array([[np.cos(radians), np.sin(radians), 0.0]])


def test_equal_vectors_are_at_cosine_one_and_angle_zero() -> None:
    vectors = unit_vectors(1000).astype(np.float32)
    np.testing.assert_allclose(cosine(vectors, vectors), 1, atol=1e-15)
    np.testing.assert_array_equal(angle_degrees(vectors, vectors), 0)


def test_opposite_and_right_angles() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0]])
    b = np.array([[-3.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosine(a, b), [-1, 0])
    np.testing.assert_allclose(angle_degrees(a, b), [180, 90])


@given(st.floats(1e-12, np.pi))
def test_angle_is_right_at_every_size(radians: float) -> None:
    assert np.radians(angle_degrees(*at_angle(radians)))[0] == pytest.approx(radians, rel=1e-9)


def test_arccos_would_lose_a_small_angle() -> None:
    a, b = at_angle(1e-9)
    assert np.arccos(cosine(a, b))[0] == 0
    assert np.radians(angle_degrees(a, b))[0] == pytest.approx(1e-9)


def test_cosine_is_never_out_of_range_and_rows_stay_apart() -> None:
    a, b = unit_vectors(500, seed=1), unit_vectors(500, seed=2)
    values = cosine(a, b)
    assert values.dtype == np.float64
    assert np.abs(cosine(a, -a)).max() <= 1
    np.testing.assert_allclose(values, [np.dot(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(np.cos(np.radians(angle_degrees(a, b))), values)


def test_arrays_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 128\) and \(1, 128\)"):
        cosine(unit_vectors(3), unit_vectors(1))
