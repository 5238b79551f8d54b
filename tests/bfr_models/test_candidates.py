"""Candidates: what stays the input's, and what becomes the network's."""

from __future__ import annotations

import numpy as np
from skimage.data import astronaut

from bfr_models.faces.candidates import corrected, replaced
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8

FACE: Uint8Image = astronaut()[0:256, 96:352]  # type: ignore[no-untyped-call]


def at(image: Uint8Image, side: int) -> Uint8Image:
    return to_uint8(resize(to_tensor(image)[None], side)[0])


def test_half_of_no_change_is_none() -> None:
    assert np.array_equal(corrected(FACE, FACE), FACE)


def test_corrected_is_half_way_at_the_photos_scale() -> None:
    network = replaced(at(FACE, 128) // 2 + 60, FACE, None)
    result = corrected(network, FACE)
    assert result.shape == FACE.shape
    assert np.abs(result - (FACE.astype(float) + network) / 2).max() <= 0.5
    small = at(FACE, 60)  # its network's face is twice as large
    assert corrected(replaced(network, small, None), small).shape == small.shape


def test_replaced_is_as_fine_as_the_photo() -> None:
    network = at(FACE, 128)
    assert replaced(network, FACE, None).shape == (256, 256, 3)
    assert replaced(network, at(FACE, 100), None) is network  # shrunk when it is pasted, not before
    assert replaced(network, at(FACE, 40), None).shape == (80, 80, 3)


def test_replaced_has_the_grain_of_the_photo_if_asked_for() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (200, 200, 1))
    photo = np.rint(at(FACE, 200) + noise).clip(0, 255).astype(np.uint8)
    smooth = np.full((128, 128, 3), 128, np.uint8)
    assert replaced(smooth, photo, None).std() == 0
    assert 1 < replaced(smooth, photo, 7).std() < 4
    assert np.array_equal(replaced(smooth, photo, 7), replaced(smooth, photo, 7))
