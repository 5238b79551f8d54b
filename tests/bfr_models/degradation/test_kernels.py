"""Blur kernels against the Gaussian density by its covariance, and their symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfr_models.degradation.kernels import gaussian_kernel

WIDTHS = st.integers(1, 20).map(lambda half: 2 * half + 1)
SIGMAS = st.floats(0.1, 15)
ANGLES = st.floats(-math.pi, math.pi)


def log_density(width: int, sigma_x: float, sigma_y: float, rotation: float) -> NDArray[np.float64]:
    """Of N(0, R diag(sigma^2) R^T) at the pixel centres, x to the right and y down, up to a constant."""
    r = np.array([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    precision = np.linalg.inv(r @ np.diag([sigma_x**2, sigma_y**2]) @ r.T)
    y, x = np.mgrid[:width, :width] - width // 2
    offsets = np.stack([x, y], axis=-1)
    return -0.5 * np.einsum("hwi,ij,hwj->hw", offsets, precision, offsets)


@given(WIDTHS, st.floats(1, 15), st.floats(1, 15), ANGLES)
def test_a_kernel_is_the_normalised_density(width: int, sigma_x: float, sigma_y: float, rotation: float) -> None:
    expected = np.exp(log_density(width, sigma_x, sigma_y, rotation))
    kernel = gaussian_kernel(width, sigma_x, sigma_y, rotation).numpy()
    # float64: the exponent, at most some 400, loses 1e-16 of itself, and the inverse some 1e-14
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-9, atol=1e-15)


@given(WIDTHS, SIGMAS, SIGMAS, ANGLES)
def test_a_kernel_keeps_the_brightness(width: int, sigma_x: float, sigma_y: float, rotation: float) -> None:
    kernel = gaussian_kernel(width, sigma_x, sigma_y, rotation)
    assert kernel.shape == (width, width) and (kernel >= 0).all()
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-13)  # 41 x 41 roundings of 1e-16 at most


@given(WIDTHS, SIGMAS, SIGMAS, ANGLES)
def test_turning_the_axes_turns_the_kernel(width: int, sigma_x: float, sigma_y: float, rotation: float) -> None:
    kernel = gaussian_kernel(width, sigma_x, sigma_y, rotation)
    close = {"rtol": 1e-9, "atol": 1e-15}  # the angles round
    torch.testing.assert_close(gaussian_kernel(width, sigma_x, sigma_y, rotation + math.pi), kernel, **close)
    torch.testing.assert_close(gaussian_kernel(width, sigma_y, sigma_x, rotation + math.pi / 2), kernel, **close)
    quarter_turn = torch.rot90(kernel, -1)  # clockwise, as angles are where y points down
    torch.testing.assert_close(gaussian_kernel(width, sigma_x, sigma_y, rotation + math.pi / 2), quarter_turn, **close)


@given(WIDTHS, SIGMAS, ANGLES)
def test_an_isotropic_kernel_has_no_direction(width: int, sigma: float, rotation: float) -> None:
    turned, straight = gaussian_kernel(width, sigma, sigma, rotation), gaussian_kernel(width, sigma, sigma, 0.0)
    torch.testing.assert_close(turned, straight, rtol=1e-9, atol=1e-15)


def test_an_unrotated_kernel_is_wide_along_x() -> None:
    kernel = gaussian_kernel(21, 4.0, 1.0, 0.0)
    assert kernel[10, 14] > kernel[14, 10]


def test_a_tiny_sigma_gives_the_identity() -> None:
    kernel = gaussian_kernel(5, 0.01, 0.01, 0.3)
    assert kernel[2, 2] == 1 and kernel.count_nonzero() == 1


@pytest.mark.parametrize("width", [0, 4, 40])
def test_an_even_width_has_no_centre(width: int) -> None:
    with pytest.raises(ValueError, match=f"expected an odd kernel width, got {width}"):
        gaussian_kernel(width, 1.0, 1.0, 0.0)
