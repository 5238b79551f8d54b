"""The rectified flow, where its velocity is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bfr_models.diffusion.flow import SIGMA, SPEED, TIMESTEPS, flow

MEAN, SPREAD = 0.2, 0.1
"""Of the clean faces' pixels, here normal and independent of each other and of y."""
Y = torch.zeros(2, 3, 4, 4)


def velocity(x: Tensor, t: float) -> Tensor:
    """E[z - x_0 | x_s] / SPEED of z ~ N(0, SIGMA^2), x_0 ~ N(MEAN, SPREAD^2), by the regression of one normal variable
    on another."""
    s = t / TIMESTEPS
    slope = (s * SIGMA**2 - (1 - s) * SPREAD**2) / (s**2 * SIGMA**2 + (1 - s) ** 2 * SPREAD**2)
    return (slope * (x - (1 - s) * MEAN) - MEAN) / SPEED


def drawn(*shape: int) -> Tensor:
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(row)) for row in range(len(Y))])


def test_it_carries_one_distribution_to_the_other() -> None:
    """Of two normal ones, by the monotone map between them, the shortest way. Euler's error falls with 1 / n."""
    nearest = MEAN + SPREAD * drawn(3, 4, 4)
    errors = [float((flow(velocity, Y, steps, drawn) - nearest).abs().max()) for steps in (50, 100, 200)]
    assert errors[0] == pytest.approx(2 * errors[1], rel=0.1) and errors[1] == pytest.approx(2 * errors[2], rel=0.1)


def test_one_step_ends_at_the_mean() -> None:
    torch.testing.assert_close(flow(velocity, Y, 1, drawn), torch.full_like(Y, MEAN), rtol=0, atol=1e-6)


def test_it_starts_at_the_face_and_its_noise_and_ends_in_the_range_of_images() -> None:
    asked: list[tuple[Tensor, float]] = []

    def spy(x: Tensor, t: float) -> Tensor:
        asked.append((x, t))
        return torch.full_like(x, -20.0)

    assert torch.equal(flow(spy, Y + 0.5, 4, drawn), torch.ones_like(Y))
    assert [t for _, t in asked] == [1000, 750, 500, 250]
    torch.testing.assert_close(asked[0][0], 0.5 + SIGMA * drawn(3, 4, 4))
