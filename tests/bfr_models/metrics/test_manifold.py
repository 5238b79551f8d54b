"""Precision and recall of sets whose overlap is known, and of random ones by brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.metrics import manifold
from bfr_models.metrics.manifold import precision_recall


def features(n: int, seed: int = 0, shift: float = 0.0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(shift, 1, (n, 5)).astype(np.float32)


def share_among(candidates: NDArray[Any], population: NDArray[Any], k: int) -> float:
    def distances(a: NDArray[Any]) -> NDArray[Any]:
        return np.linalg.norm(a[:, None].astype(np.float64) - population[None], axis=2)

    radii = np.sort(distances(population), axis=1)[:, k]  # the first is the face itself
    return float((distances(candidates) <= radii).any(axis=1).mean())


def test_of_equal_and_of_distant_sets() -> None:
    x = features(50)
    same, far = precision_recall(x, x), precision_recall(x, x + 100)
    assert (same.precision, same.recall, same.k, same.n) == (1, 1, 3, (50, 50))
    assert (far.precision, far.recall) == (0, 0)


def test_a_lost_mode_costs_recall_and_an_invented_one_precision() -> None:
    left, right = features(40), features(40, 1) + 100
    lost = precision_recall(left, np.concatenate([left, right]))
    assert (lost.precision, lost.recall) == (1, 0.5)
    invented = precision_recall(np.concatenate([left, right]), left)
    assert (invented.precision, invented.recall) == (0.5, 1)


@given(st.integers(0, 2**32), st.integers(5, 30), st.integers(5, 30), st.integers(1, 4), st.floats(0, 3))
def test_is_its_definition_whatever_the_blocks(seed: int, n: int, m: int, k: int, shift: float) -> None:
    x, y = features(n, seed), features(m, seed + 1, shift)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "_BLOCK", 7)
        found = precision_recall(x, y, k=k)
    assert (found.precision, found.recall) == (share_among(x, y, k), share_among(y, x, k))


def test_more_faces_than_neighbours_are_needed() -> None:
    with pytest.raises(UsageError, match=r"more than 3 faces, found \(3, 5\)"):
        precision_recall(features(3), features(9))
