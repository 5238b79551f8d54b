"""Near-duplicates among pictures by a perceptual hash of 64 bits, found in bounded time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image
from tasks.curation.near_duplicates import Forest
from tasks.curation.row_vectors import perceptual_vector

Hashes = NDArray[np.uint64]

MAX_BITS = 3
"""Bits in which two pictures of one print may differ: a copy that was encoded again, or resized."""
_BANDS = MAX_BITS + 1  # of equal width: hashes that differ in at most MAX_BITS bits agree in one of them
_WIDTH = 64 // _BANDS
_WINDOW = 64  # hashes of one band that each is compared with


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """For each row, the first row of its group: its own place if nothing is like it."""

    labels: NDArray[np.int64]
    bits: NDArray[np.int64]  # in which the row differs from that first one

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that repeat an earlier one."""
        return np.flatnonzero(self.labels != np.arange(len(self.labels)))


def picture_hash(pixels: Uint8Image) -> int:
    """64 bits of an (H, W, 3) picture: which of its 63 lowest frequencies lie above their median, and 0; 0 if flat."""
    vector = perceptual_vector(pixels)
    if not vector.any():
        return 0
    bits = np.append(vector > np.median(vector), False)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(hashes: Hashes) -> NearDuplicates:
    """Groups (n,) hashes that differ in at most `MAX_BITS` bits; flat pictures (0) are like nothing.

    Takes n x 4 x 64 comparisons at most: within a band that more than 64 pictures share, each is compared with its next
    64 neighbours in the order of their hashes, so that a pair may be missed there, though hardly one of equal hashes.
    """
    forest, there = Forest(len(hashes)), np.flatnonzero(hashes)
    for band in range(_BANDS):
        shift = np.uint64(band * _WIDTH)
        turned = (hashes[there] << shift) | (hashes[there] >> (np.uint64(64) - shift)) if band else hashes[there]
        order = np.argsort(turned, kind="stable")
        rows, key, found = there[order], turned[order] >> np.uint64(64 - _WIDTH), hashes[there[order]]
        for step in range(1, min(_WINDOW, len(rows) - 1) + 1):
            in_band = np.flatnonzero(key[:-step] == key[step:])
            if not len(in_band):
                break
            near = in_band[_distance(found[in_band], found[in_band + step]) <= MAX_BITS]
            forest.link(rows[near], rows[near + step])
    return NearDuplicates(forest.labels, _distance(hashes, hashes[forest.labels]))


def _distance(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    return np.bitwise_count(a ^ b).astype(np.int64)
