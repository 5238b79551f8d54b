"""The kernel distance is the reference's, unbiased, and the same wherever it is computed."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.metrics import kernel
from bfr_models.metrics.frechet import INCEPTION, FeatureSource
from bfr_models.metrics.kernel import kernel_distance, squared_mmd

SOURCE = FeatureSource(INCEPTION)


def features(n: int, d: int = 16, seed: int = 0, shift: float = 0.0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(shift, 1, (n, d)).astype(np.float32)


def direct(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Gretton 2012, lemma 6, pair by pair."""

    def k(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float((a.astype(np.float64) @ b / a.size + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_the_squared_mmd_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(7), features(5, seed=1, shift=0.5)
    expected = direct(x, y)
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(kernel, "_BLOCK", 3)
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_squared_mmd_is_that_of_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = features(200, 64), features(200, 64, seed=1, shift=0.1)
    theirs = kid.poly_mmd(torch.from_numpy(x).double(), torch.from_numpy(y).double())
    assert squared_mmd(x, y) == pytest.approx(float(theirs), abs=1e-9, rel=1e-9)


def test_one_subset_of_all_is_the_whole() -> None:
    x, y = features(50), features(50, seed=1, shift=0.5)
    found = kernel_distance(x, y, SOURCE, subsets=3)
    assert found.mean == pytest.approx(squared_mmd(x, y), rel=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12)
    assert (found.name, found.subset_size, found.n) == ("kid", 50, (50, 50))


def test_it_is_unbiased_where_a_frechet_distance_is_not() -> None:
    pairs = [(features(10, seed=2 * i), features(10, seed=2 * i + 1)) for i in range(400)]
    values = [squared_mmd(x, y) for x, y in pairs]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_subsets_depend_on_the_seed_alone() -> None:
    x, y = features(300), features(200, seed=1, shift=0.5)
    first, again, other = (kernel_distance(x, y, SOURCE, subsets=5, subset_size=50, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first.std > 0
    assert first.mean == pytest.approx(other.mean, abs=5 * first.std)


def test_the_rows_of_a_seed_never_change() -> None:
    rows = np.arange(12, dtype=np.float64)[:, None]
    bits = np.random.PCG64(0)
    assert [kernel._draw(rows, 4, bits)[:, 0].tolist() for _ in range(2)] == [[1, 2, 3, 11], [1, 3, 8, 9]]


def test_another_networks_distance_has_its_name_and_two_faces_are_needed() -> None:
    assert kernel_distance(features(9), features(9), FeatureSource("dlib"), subsets=1).name == "kd_dlib"
    with pytest.raises(UsageError, match="at least 2 faces, found 9 and 1"):
        kernel_distance(features(9), features(1), SOURCE)
    with pytest.raises(UsageError, match=r"\(9, 16\) and \(9, 3\)"):
        squared_mmd(features(9), features(9, 3))
