"""Grain: measured, given back, and no more than that."""

from __future__ import annotations

from math import hypot

import numpy as np
import pytest

from bfr_models.faces.grain import INVISIBLE, STRONGEST, add_grain, grain_of
from bfr_models.pixels import Uint8Image


def grainy(deviation: float, side: int = 160, level: int = 128) -> Uint8Image:
    """A flat grey square with luma noise of so many grey levels."""
    noise = np.random.default_rng(0).normal(0, deviation, (side, side, 1))
    return np.rint(level + np.repeat(noise, 3, axis=2)).clip(0, 255).astype(np.uint8)


def flat(side: int = 160, level: int = 128) -> Uint8Image:
    return np.full((side, side, 3), level, np.uint8)


def strength(image: Uint8Image) -> float:
    return hypot(*grain_of(image).luma)


def test_grain_is_measured_in_grey_levels() -> None:
    fine, coarse = grain_of(grainy(3)).luma
    assert 2.2 < fine < 3 and 0.4 < coarse < 1.2  # white noise is mostly in the fine band
    assert max(grain_of(grainy(3)).colour) < 0.5
    assert not grain_of(flat()).is_visible


def test_edges_are_no_grain() -> None:
    board = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((40, 40)))[..., None].repeat(3, axis=2)
    assert strength((60 + 120 * board).astype(np.uint8)) < INVISIBLE


@pytest.mark.parametrize("deviation", [1.0, 2.0])
def test_a_smooth_face_gets_the_grain_around_it(deviation: float) -> None:
    wanted = grain_of(grainy(deviation))
    given = add_grain(flat(), wanted, 1, seed=1)
    assert strength(given) == pytest.approx(hypot(*wanted.luma), rel=0.2)


def test_what_has_its_grain_gets_no_more() -> None:
    there = grainy(2)
    given = add_grain(there, grain_of(there), 1, seed=1)
    assert strength(given) < strength(there) * 1.05


def test_strong_noise_is_not_given_back() -> None:
    assert strength(add_grain(flat(), grain_of(grainy(20)), 1, seed=1)) < STRONGEST * 1.2


def test_black_and_white_stay() -> None:
    for level in (0, 255):
        assert np.array_equal(add_grain(flat(level=level), grain_of(grainy(3)), 1, seed=1), flat(level=level))


def test_same_seed_same_grain() -> None:
    grain = grain_of(grainy(3))
    assert np.array_equal(add_grain(flat(), grain, 1, seed=5), add_grain(flat(), grain, 1, seed=5))
    assert not np.array_equal(add_grain(flat(), grain, 1, seed=5), add_grain(flat(), grain, 1, seed=6))


def test_a_photo_without_grain_leaves_the_face_as_it_is() -> None:
    face = grainy(1)
    assert add_grain(face, grain_of(flat()), 1, seed=1) is face
