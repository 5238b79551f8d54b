"""Pictures that are copies of one print are found; others are not, and it takes bounded time."""

from __future__ import annotations

import time

import cv2
import numpy as np

from tasks.assessment.picture_hash import near_duplicates, picture_hash
from tests import support
from tests.real_photos import photo


def test_a_copy_that_was_encoded_again_or_resized_is_a_near_duplicate() -> None:
    original = photo(0)
    again = support.decoded(support.encoded(original, "jpeg", quality=60))
    smaller = cv2.resize(original, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    pictures = [photo(1), original, again, np.asarray(smaller, np.uint8), support.portrait(3), original[:, ::-1]]
    found = near_duplicates(np.array([picture_hash(picture) for picture in pictures], np.uint64))
    assert found.labels.tolist() == [0, 1, 1, 1, 4, 5] and found.rows.tolist() == [2, 3]
    assert (found.bits <= 3).all() and found.bits[1] == 0


def test_flat_pictures_are_like_nothing() -> None:
    flat = picture_hash(np.full((50, 40, 3), 200, np.uint8))
    assert flat == 0 and near_duplicates(np.array([flat, flat], np.uint64)).rows.tolist() == []
    assert near_duplicates(np.zeros(0, np.uint64)).rows.tolist() == []


def test_up_to_three_bits_wherever_they_are_and_many_copies_in_bounded_time() -> None:
    draw = np.random.default_rng(0)
    hashes = draw.integers(1, 2**63, 20_000, dtype=np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in draw.choice(64, 3, replace=False)) for _ in range(500)], np.uint64)
    hashes[1000:1500] = hashes[:500] ^ flips
    hashes[5000:15_000] = hashes[4999]
    began = time.thread_time()
    found = near_duplicates(hashes)
    assert time.thread_time() - began < 5
    np.testing.assert_array_equal(found.labels[1000:1500], np.arange(500))
    assert (found.labels[5000:15_000] == 4999).all() and len(found.rows) == 10_500
