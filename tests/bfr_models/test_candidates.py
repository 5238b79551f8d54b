"""Candidates: what stays the input's, and what becomes the network's."""

from __future__ import annotations

import numpy as np
from skimage.data import astronaut

from bfr_models.faces.candidates import corrected, replaced
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8

FACE: Uint8Image = astronaut()[0:256, 96:352]  # type: ignore[no-untyped-call]


def at(image: Uint8Image, side: int) -> Uint8Image:
    return to_uint8(resize(to_tensor(image)[None], side)[0])


def test_a_network_that_changes_nothing_corrects_nothing() -> None:
    assert np.array_equal(corrected(at(FACE, 128), FACE), FACE)


def test_corrected_keeps_the_detail_that_the_network_cannot_draw() -> None:
    brighter = (at(FACE, 128) * 0.5 + 60).astype(np.uint8)
    result = corrected(brighter, FACE)
    inside = (result > 0) & (result < 255)
    beyond = FACE.astype(float) - at(at(FACE, 128), 256)
    left = result.astype(float) - at(brighter, 256)
    assert np.abs(beyond - left)[inside].mean() < 1.0 < np.abs(beyond)[inside].mean()


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
