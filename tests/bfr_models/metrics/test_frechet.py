"""Statistics merge exactly, count each shard once, and give the distance of closed forms and reference libraries."""

import importlib
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfr_models.errors import BfrError, UsageError
from bfr_models.metrics.frechet import (
    INCEPTION,
    FeatureSource,
    FeatureStatistics,
    Gaussian,
    frechet_distance,
)

SOURCE = FeatureSource("net", "0" * 64, "as it is")
Array = NDArray[Any]


def features(n: int, d: int, seed: int = 0, shift: float = 0.0) -> Array:
    """As a network's: not below 0, float32, of falling variance."""
    values = np.abs(np.random.default_rng(seed).standard_normal((n, d)) + shift) / np.arange(1, d + 1)
    return values.astype(np.float32)


def statistics(x: Array, key: str = "a", source: FeatureSource = SOURCE) -> FeatureStatistics:
    return FeatureStatistics.from_features(x, source, key)


def gaussian(x: Array) -> Gaussian:
    return statistics(x).gaussian()


def normal(mean: Array, covariance: Array) -> Gaussian:
    return Gaussian(SOURCE, np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64))


def nuclear(x: Array, y: Array) -> float:
    """The distance from the features alone: Tr (A B)^(1/2) is the sum of the singular values of X Y^T."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    u, v = ((z - z.mean(axis=0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    trace = np.linalg.svd(u @ v.T, compute_uv=False).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (u**2).sum() + (v**2).sum() - 2 * trace)


class TestMerging:
    @given(
        st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**32), st.lists(st.integers(0, 60), max_size=6),
        st.floats(-1e3, 1e3), st.randoms(use_true_random=False),
    )  # fmt: skip
    def test_any_split_in_any_order_is_the_whole(
        self, n: int, d: int, seed: int, cuts: list[int], offset: float, random: Any
    ) -> None:
        x = features(n, d, seed) + offset
        edges = [0, *sorted(min(cut, n) for cut in cuts), n]
        shards = [statistics(x[a:b], f"shard-{i}") for i, (a, b) in enumerate(pairwise(edges))]
        random.shuffle(shards)
        merged, whole = FeatureStatistics.merge_all(shards), statistics(x)
        assert merged.n == n and merged.keys == {f"shard-{i}" for i in range(len(edges) - 1)}
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9, atol=1e-9 * max(1.0, whole.scatter.max()))
        reference = normal(np.zeros(d), np.eye(d))
        distances = [frechet_distance(s.gaussian(), reference).value for s in (merged, whole)]
        assert distances[0] == pytest.approx(distances[1], rel=1e-9)
        random.shuffle(shards)
        assert FeatureStatistics.merge_all(shards).to_bytes() == merged.to_bytes()

    def test_more_shards_than_are_multiplied_together(self) -> None:
        x = features(600, 5)
        merged = FeatureStatistics.fold(statistics(x[i : i + 2], f"{i:04}") for i in range(0, 600, 2))
        np.testing.assert_allclose(merged.scatter, statistics(x).scatter, rtol=1e-12)

    def test_the_covariance_is_numpys(self) -> None:
        x = features(5000, 7)
        np.testing.assert_allclose(gaussian(x).covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-12)

    def test_a_large_mean_does_not_swallow_a_small_variance(self) -> None:
        x = features(1000, 3).astype(np.float64) + 1e7
        shards = [statistics(x[i::10], f"{i}") for i in range(10)]
        expected = np.cov(x - 1e7, rowvar=False)
        np.testing.assert_allclose(FeatureStatistics.merge_all(shards).gaussian().covariance, expected, rtol=1e-6)

    @given(st.integers(1, 5), st.integers(0, 4))
    def test_a_shard_counts_once(self, shards: int, repeated: int) -> None:
        states = [statistics(features(4, 3, i), f"shard-{i}") for i in range(shards)]
        merged = FeatureStatistics.merge_all(states)
        with pytest.raises(BfrError, match=f"each shard once, found .'shard-{repeated % shards}'"):
            merged.merge(states[repeated % shards])

    def test_an_empty_shard_adds_its_key_alone(self) -> None:
        some, none = statistics(features(9, 3), "b"), statistics(features(0, 3), "a")
        for merged in (some.merge(none), none.merge(some), FeatureStatistics.merge_all([none, some])):
            assert merged.n == 9 and merged.keys == {"a", "b"}
            np.testing.assert_array_equal(merged.mean, some.mean)
            np.testing.assert_array_equal(merged.scatter, some.scatter)

    @pytest.mark.parametrize(
        ("other", "what"),
        [
            (FeatureSource("other", SOURCE.sha256, SOURCE.preprocessing), "network 'net' and 'other'"),
            (FeatureSource("net", "1" * 64, SOURCE.preprocessing), "sha256"),
            (FeatureSource("net", SOURCE.sha256, "clean"), "preprocessing 'as it is' and 'clean'"),
        ],
    )
    def test_features_of_two_sources_are_refused(self, other: FeatureSource, what: str) -> None:
        a, b = statistics(features(4, 3), "a"), statistics(features(4, 3), "b", other)
        with pytest.raises(UsageError, match=what):
            a.merge(b)
        with pytest.raises(UsageError, match=what):
            frechet_distance(a.gaussian(), b.gaussian())

    def test_features_of_two_lengths_are_refused(self) -> None:
        with pytest.raises(UsageError, match="of 3 numbers, found 4"):
            statistics(features(4, 3), "a").merge(statistics(features(4, 4), "b"))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_features_that_are_not_finite_are_refused(self, bad: float) -> None:
        x = features(4, 3)
        x[2, 1] = bad
        with pytest.raises(BfrError, match="finite features in shard-7"):
            statistics(x, "shard-7")

    def test_nothing_to_merge_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="at least one shard"):
            FeatureStatistics.merge_all([])


class TestFiles:
    def test_statistics_come_back_to_the_last_bit(self) -> None:
        written = statistics(features(30, 9), "shard ü").merge(statistics(features(3, 9, 1), "b"))
        data = written.to_bytes()
        read = FeatureStatistics.from_bytes(data)
        assert (read.n, read.keys, read.source) == (33, {"shard ü", "b"}, SOURCE)
        np.testing.assert_array_equal(read.mean, written.mean)
        np.testing.assert_array_equal(read.scatter, written.scatter)
        assert read.to_bytes() == data
        assert len(statistics(features(3, 128)).to_bytes()) < 69_000

    @pytest.mark.parametrize("n", [0, 1, 2, 32, 64, 65, 300])
    def test_a_shard_of_few_faces_packs_small_and_to_rounding(self, n: int) -> None:
        written = statistics(features(n, 128))
        data = written.packed()
        read = FeatureStatistics.from_bytes(data)
        assert (read.n, read.keys, read.source) == (written.n, written.keys, written.source)
        np.testing.assert_array_equal(read.mean, written.mean)
        np.testing.assert_allclose(
            read.scatter, written.scatter, rtol=0, atol=1e-13 * max(1, np.abs(written.scatter).max())
        )
        assert len(data) < 1500 + 128 * 8 + min(8 * 128 * max(n - 1, 0), 4 * 128 * 129)

    def test_pytorch_fid_and_clean_fid_can_read_what_we_write(self) -> None:
        a = gaussian(features(30, 9))
        with np.load(io.BytesIO(a.to_npz()), allow_pickle=False) as file:
            np.testing.assert_array_equal(file["mu"], a.mean)
            np.testing.assert_array_equal(file["sigma"], a.covariance)

    def test_we_can_read_what_they_write(self) -> None:
        x, buffer = features(30, 9), io.BytesIO()
        np.savez(buffer, mu=x.mean(axis=0), sigma=np.cov(x, rowvar=False))
        reference = Gaussian.from_npz(buffer.getvalue(), SOURCE)
        assert (reference.source, reference.n) == (SOURCE, None)
        assert frechet_distance(gaussian(x), reference).value == pytest.approx(0, abs=1e-6)

    def test_a_file_of_ours_says_what_made_it(self) -> None:
        data = gaussian(features(30, 9)).to_npz()
        read = Gaussian.from_npz(data, FeatureSource("net"))
        assert (read.source, read.n) == (SOURCE, 30)
        with pytest.raises(UsageError, match="'net' and 'inception"):
            Gaussian.from_npz(data, FeatureSource(INCEPTION))

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04cut", b"no zip at all", b"\x93NUMPY"])
    def test_what_is_no_file_of_statistics_is_refused(self, data: bytes) -> None:
        with pytest.raises(UsageError, match=r"expected a \.npz with mu, sigma"):
            Gaussian.from_npz(data, SOURCE)
        with pytest.raises(UsageError, match=r"expected a \.npz with mean, about"):
            FeatureStatistics.from_bytes(data)

    @pytest.mark.parametrize("about", [b"", b"{", b"[]", b'{"network": "net"}'])
    def test_a_damaged_origin_is_refused(self, about: bytes) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, mu=np.zeros(3), sigma=np.eye(3), about=np.frombuffer(about, dtype=np.uint8))
        with pytest.raises(UsageError, match="says what made it"):
            Gaussian.from_npz(buffer.getvalue(), SOURCE)

    def test_other_arrays_and_pickles_are_refused(self) -> None:
        for arrays in ({"mu": np.zeros(3)}, {"mu": np.array([object()]), "sigma": np.eye(3)}):
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            with pytest.raises(UsageError, match=r"expected a \.npz with mu, sigma"):
                Gaussian.from_npz(buffer.getvalue(), SOURCE)

    @pytest.mark.parametrize("sigma", [np.eye(4), np.full((3, 3), np.nan), np.zeros(3)])
    def test_a_covariance_that_does_not_fit_is_refused(self, sigma: Array) -> None:
        with pytest.raises(UsageError, match="expected a"):
            normal(np.zeros(3), sigma)


class TestDistance:
    def test_of_independent_features_is_known(self) -> None:
        a, b = normal([1, 2, 3], np.diag([1, 4, 9])), normal([1, 0, 3], np.diag([4, 4, 1]))
        assert frechet_distance(a, b).value == pytest.approx(4 + (1 - 2) ** 2 + (3 - 1) ** 2, rel=1e-14)

    @given(st.integers(0, 2**32), st.integers(1, 12))
    def test_does_not_change_under_rotation(self, seed: int, d: int) -> None:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
        means, spreads = rng.standard_normal((2, d)), rng.uniform(0, 2, (2, d))
        expected = ((means[0] - means[1]) ** 2).sum() + ((spreads[0] - spreads[1]) ** 2).sum()
        a, b = (
            normal(rotation @ m, rotation @ np.diag(s**2) @ rotation.T) for m, s in zip(means, spreads, strict=True)
        )
        assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(("n", "m", "d"), [(500, 700, 64), (20, 500, 64), (20, 30, 64), (2, 3, 64), (700, 20, 64)])
    def test_is_right_where_covariances_have_no_full_rank(self, n: int, m: int, d: int) -> None:
        x, y = features(n, d, 1), features(m, d, 2, shift=0.3)
        value = frechet_distance(gaussian(x), gaussian(y)).value
        assert value == pytest.approx(nuclear(x, y), rel=1e-10)
        assert frechet_distance(gaussian(y), gaussian(x)).value == pytest.approx(value, rel=1e-6)

    def test_is_zero_between_equals_and_of_constants_that_of_their_means(self) -> None:
        a = gaussian(features(100, 32))
        assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-12)
        zero, two = gaussian(np.zeros((5, 4))), gaussian(np.full((5, 4), 2.0))
        assert frechet_distance(zero, two).value == 16
        assert frechet_distance(zero, gaussian(features(9, 4))).value >= 0

    def test_needs_two_faces(self) -> None:
        with pytest.raises(UsageError, match="at least 2 faces, found 1"):
            gaussian(features(1, 4))

    def test_threads_are_given_back(self) -> None:
        before = torch.get_num_threads()
        frechet_distance(gaussian(features(9, 4)), gaussian(features(9, 4)))
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize(("network", "name"), [(INCEPTION, "fid"), ("dlib_resnet_v1", "fd_dlib_resnet_v1")])
    def test_has_the_name_of_its_network(self, network: str, name: str) -> None:
        a = statistics(features(9, 4), source=FeatureSource(network)).gaussian()
        assert frechet_distance(a, a).name == name

    @pytest.mark.parametrize(
        ("n", "d", "warns"), [(2047, 4, "fewer than 2048"), (2048, 4, None), (None, 4, None), (3, 4, "full rank")]
    )
    def test_warns_of_few_faces(self, n: int | None, d: int, warns: str | None) -> None:
        a = Gaussian(SOURCE, np.zeros(d), np.zeros((d, d)), n)
        warning = frechet_distance(a, normal(np.zeros(d), np.zeros((d, d)))).warning
        assert (warning is None) if warns is None else (warns in str(warning) and str(n) in str(warning))


class TestParity:
    """All features below have full rank; without it the libraries are off by 1e-6 to 5e-2, see above."""

    def test_scipys_square_root(self) -> None:
        linalg = pytest.importorskip("scipy.linalg")
        a, b = gaussian(features(400, 48, 1)), gaussian(features(300, 48, 2, 0.2))
        root = linalg.sqrtm(a.covariance @ b.covariance)
        expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root.real)
        assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-9)

    def test_torchmetrics(self) -> None:
        fid = pytest.importorskip("torchmetrics.image.fid")
        x, y = features(300, 32, 1), features(400, 32, 2, 0.2)
        network = torch.nn.Flatten()
        network.num_features = 32
        metric = fid.FrechetInceptionDistance(feature=network, input_img_size=(1, 1, 32), normalize=True)
        metric.inception, metric.normalize = network, False
        for batch, real in ((x, True), (y, False)):
            metric.update(torch.from_numpy(batch), real=real)
        metric.set_dtype(torch.float64)
        ours = frechet_distance(gaussian(x), gaussian(y)).value
        assert ours == pytest.approx(float(metric.compute()), rel=1e-6)

    @pytest.mark.parametrize(
        ("module", "function"),
        [("cleanfid.fid", "frechet_distance"), ("pytorch_fid.fid_score", "calculate_frechet_distance")],
    )
    def test_libraries_that_want_torchvision(self, module: str, function: str) -> None:
        try:
            library = importlib.import_module(module)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"{module}: {error}")
        a, b = gaussian(features(600, 64, 1)), gaussian(features(500, 64, 2, 0.2))
        theirs = getattr(library, function)(a.mean, a.covariance, b.mean, b.covariance)
        assert frechet_distance(a, b).value == pytest.approx(float(theirs), rel=1e-6)
