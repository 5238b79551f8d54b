"""Fréchet distance of features (arXiv 1706.08500), from statistics that merge over any number of shards.

A shard's statistics are its count, mean and scatter in float64; two merge by Chan's formula, so that any split of the
rows, merged in any order, gives the same distance to 1e-9. A shard counts once: the keys of the shards that went in
are part of the statistics.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import BfrError, UsageError

INCEPTION = "inception-2015-12-05"
"""The one network whose distance is called FID."""

FEW = 2048  # rows; with fewer, the bias of about 1/n exceeds most differences between methods
UNKNOWN = "unknown"  # the network of statistics that do not name one
_BLOCK = 4096  # rows in float64 at a time
_TOGETHER = 256  # shards whose means are added to the scatter in one product
_FORMAT = 1

Floats = NDArray[np.float64]
Features = NDArray[np.float32] | NDArray[np.float64]
"""(n, d), one face per row."""


@dataclass(frozen=True)
class FeatureSource:
    """The origin of features: a distance between two sources means nothing.

    `preprocessing` names how images were prepared for the network (resize and levels): it moves an FID as much as a
    method does. None: not known, as in a file of another library; it is then assumed to match.
    """

    network: str
    sha256: str | None = None  # of the network's weights
    preprocessing: str | None = None

    @property
    def metric(self) -> str:
        """`fid` for the Inception of 2015-12-05 alone; another network's distance is called after it."""
        return "fid" if self.network == INCEPTION else f"fd_{self.network}"

    def check(self, other: FeatureSource) -> None:
        """UsageError unless features of both may be put together or compared."""
        for what in ("network", "sha256", "preprocessing"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs and mine is not None and theirs is not None:
                raise UsageError(
                    f"expected features of one source, found {what} {mine!r} and {theirs!r}; "
                    "compute both with the same network and protocol"
                )


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (d,) and covariance (d, d) of features, float64, of `n` rows (None: not known)."""

    source: FeatureSource
    mean: Floats
    covariance: Floats
    n: int | None = None

    def __post_init__(self) -> None:
        (d,) = self.mean.shape if self.mean.ndim == 1 else (-1,)
        if self.covariance.shape != (d, d):
            raise UsageError(f"expected a mean (d,) and a covariance (d, d), found {self.mean.shape} and "
                             f"{self.covariance.shape}")  # fmt: skip
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise UsageError("expected a finite mean and covariance, found nan or inf")

    def to_npz(self, **notes: str) -> bytes:
        """`mu` and `sigma`, as pytorch-fid and clean-fid read them, and beside them what we know of their origin."""
        about = {"about": _text({**vars(self.source), "n": self.n})}
        return _npz({"mu": self.mean, "sigma": self.covariance, **about, **{k: np.array(v) for k, v in notes.items()}})

    @classmethod
    def from_npz(cls, data: bytes, source: FeatureSource | None = None) -> Gaussian:
        """From a file of ours or of pytorch-fid or clean-fid; `source` is for those, which do not say what made them.
        Without one, such a file is of a network called `unknown`.

        UsageError when it is no such file, or when it says that another network made it.
        """
        arrays = _arrays(data, "mu", "sigma")
        n = None
        if "about" in arrays:
            found, about = _about(arrays)
            if source is not None:
                found.check(source)
            source, n = found, about.get("n")
        mean, covariance = (np.asarray(arrays[name], dtype=np.float64) for name in ("mu", "sigma"))
        return cls(source or FeatureSource(UNKNOWN), mean.squeeze(), covariance, n)


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, mean (d,) and scatter (d, d), the sum of (x - mean)(x - mean)^T, of the rows of the shards `keys`."""

    source: FeatureSource
    n: int
    mean: Floats
    scatter: Floats
    keys: frozenset[str]

    @classmethod
    def from_features(cls, features: Features, source: FeatureSource, key: str) -> FeatureStatistics:
        """Of one shard's (n, d) features; n may be 0. BfrError when one is not finite."""
        n, d = features.shape
        if not np.isfinite(features).all():
            raise BfrError(f"expected finite features in {key}, found nan or inf; compute the shard again")
        mean = features.mean(axis=0, dtype=np.float64) if n else np.zeros(d)
        scatter = np.zeros((d, d))
        for start in range(0, n, _BLOCK):
            scatter += _squares(features[start : start + _BLOCK] - mean)
        return cls(source, n, mean, scatter, frozenset([key]))

    @classmethod
    def merge_all(cls, states: Collection[FeatureStatistics]) -> FeatureStatistics:
        """All of them together, the same to the last byte whatever order they come in."""
        return cls.fold(sorted(states, key=lambda state: min(state.keys)))

    @classmethod
    def fold(cls, states: Iterable[FeatureStatistics]) -> FeatureStatistics:
        """All of them together, one after the other: two are in memory at a time. Give them in the order of their
        keys for the same bytes each time. BfrError when a shard comes twice, UsageError when sources differ."""
        iterator = iter(states)
        first = next(iterator, None)
        if first is None:
            raise UsageError("expected statistics of at least one shard, found none")
        n, mean, scatter, keys = first.n, first.mean.copy(), first.scatter.copy(), set(first.keys)
        between: list[Floats] = []  # vectors whose squares are yet to be added, many in one product
        for state in iterator:
            first.source.check(state.source)
            if state.mean.shape != mean.shape:
                raise UsageError(f"expected features of {mean.size} numbers, found {state.mean.size}")
            if repeated := keys & state.keys:
                raise BfrError(f"expected each shard once, found {sorted(repeated)[:3]} again; leave the repeats out")
            keys |= state.keys
            if not state.n:
                continue
            total = n + state.n
            delta = state.mean - mean
            mean += delta * (state.n / total)
            scatter += state.scatter
            between.append(delta * (n * state.n / total) ** 0.5)
            n = total
            if len(between) == _TOGETHER:
                scatter += _squares(np.stack(between))
                between.clear()
        if between:
            scatter += _squares(np.stack(between))
        return cls(first.source, n, mean, scatter, frozenset(keys))

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Both together; see `fold`."""
        return self.merge_all([self, other])

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance (n - 1). UsageError with fewer than two rows."""
        if self.n < 2:
            raise UsageError(f"expected features of at least 2 faces, found {self.n}")
        return Gaussian(self.source, self.mean, self.scatter / (self.n - 1), self.n)

    def to_bytes(self) -> bytes:
        """For a commit record or a file; equal statistics give equal bytes. About 4 d^2 bytes."""
        upper = np.concatenate([row[i:] for i, row in enumerate(self.scatter)])
        return _npz({"mean": self.mean, "scatter": upper, "about": self._about()})

    def packed(self) -> bytes:
        """As `to_bytes`, in about 8 n d bytes where rows are few: a factor of the scatter, which is right to 1e-15."""
        d, rank = self.mean.size, max(self.n - 1, 0)
        if 2 * rank >= d:
            return self.to_bytes()
        levels, vectors = np.linalg.eigh(self.scatter)
        factor = (vectors * np.sqrt(levels.clip(min=0))).T[d - rank :]
        return _npz({"mean": self.mean, "factor": factor, "about": self._about()})

    def _about(self) -> NDArray[np.uint8]:
        return _text({"format": _FORMAT, **vars(self.source), "n": self.n, "keys": sorted(self.keys)})

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureStatistics:
        """The inverse of `to_bytes`, to the last bit, and of `packed`. UsageError when it is something else."""
        arrays = _arrays(data, "mean", "about")
        source, about = _about(arrays)
        if about.get("format") != _FORMAT or not arrays.keys() & {"scatter", "factor"}:
            raise UsageError(f"expected feature statistics of format {_FORMAT}, found {about.get('format')}")
        mean = arrays["mean"]
        if "factor" in arrays:
            return cls(source, about["n"], mean, _squares(arrays["factor"]), frozenset(about["keys"]))
        scatter, left = np.empty((mean.size, mean.size)), arrays["scatter"]
        for i in range(mean.size):
            scatter[i, i:] = scatter[i:, i] = left[: mean.size - i]
            left = left[mean.size - i :]
        return cls(source, about["n"], mean, scatter, frozenset(about["keys"]))


@dataclass(frozen=True)
class FrechetDistance:
    """The distance, under its own name; `warning` says why it means little, if it does."""

    name: str
    value: float
    n: tuple[int | None, int | None]
    warning: str | None


def frechet_distance(a: Gaussian, b: Gaussian) -> FrechetDistance:
    """|mu_a - mu_b|^2 + Tr(A + B - 2 (A B)^(1/2)), float64, without a square root, as FID is reported.

    The last trace is that of (L^T B L)^(1/2) with A = L L^T: symmetric, real, and exact also where a covariance has
    no full rank. UsageError when the features do not compare.
    """
    a.source.check(b.source)
    if a.mean.shape != b.mean.shape:
        raise UsageError(
            f"expected features of one length, found {a.mean.size} and {b.mean.size}; compare by one network"
        )
    thin, wide = sorted((a, b), key=lambda g: np.inf if g.n is None else g.n)  # the factor of the lower rank
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    value = float(np.sum((a.mean - b.mean) ** 2) + traces - 2 * _trace_of_root(thin.covariance, wide.covariance))
    return FrechetDistance(a.source.metric, max(value, 0.0), (a.n, b.n), _warning(a, b))


def _squares(rows: Floats) -> Floats:
    return rows.T @ rows


def _trace_of_root(a: Floats, b: Floats) -> float:
    """Tr (A B)^(1/2). By one thread: on a busy machine a second one makes the decomposition fifty times slower."""
    import torch  # here, since merging needs none of it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        levels, vectors = torch.linalg.eigh(torch.from_numpy(a))
        kept = levels > levels[-1] * len(levels) * 1e-15
        factor = vectors[:, kept] * levels[kept].sqrt()
        squares = torch.linalg.eigvalsh(factor.T @ torch.from_numpy(b) @ factor)
    finally:
        torch.set_num_threads(threads)
    return float(squares.clamp(min=0).sqrt().sum())


def _warning(a: Gaussian, b: Gaussian) -> str | None:
    counts, d = [g.n for g in (a, b) if g.n is not None], a.mean.size
    if not counts or min(counts) > max(FEW - 1, d):
        return None
    reason = f"a covariance of {d} features has no full rank" if min(counts) <= d else f"fewer than {FEW}"
    return (
        f"only {min(counts)} faces ({reason}): the distance is biased upwards by about 1/n. Compare at equal n only, "
        "or use the kernel distance (KID)"
    )


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(data: bytes, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz; nothing is unpickled."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        found = f"a damaged file, or one of another kind ({type(error).__name__})"
        raise UsageError(
            f"expected a .npz with {', '.join(names)}, found {found}; make it again, or name another"
        ) from None
    if missing := [name for name in names if name not in arrays]:
        raise UsageError(
            f"expected a .npz with {', '.join(names)}, found one without {', '.join(missing)}; name another"
        )
    return arrays


def _text(content: Mapping[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content, sort_keys=True).encode(), dtype=np.uint8)


def _about(arrays: Mapping[str, NDArray[Any]]) -> tuple[FeatureSource, dict[str, Any]]:
    try:
        about = json.loads(arrays["about"].tobytes())
        return FeatureSource(about["network"], about["sha256"], about["preprocessing"]), about
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"expected a .npz that says what made it, found one that does not ({error!r})") from None
