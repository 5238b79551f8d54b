"""A metric's distribution over any number of rows, in a few numbers that add exactly.

Sums are kept as integers (billionths), so any split of the rows, merged in any order, gives the same
summary to the last bit. Percentiles come from a histogram and are good to its bin width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_UNIT = 10**9
_COARSE = 10


@dataclass(frozen=True)
class Summary:
    """Count, sum, sum of squares, range and histogram of finite values. Bin i holds (i x width, (i + 1) x width]."""

    bin_width: float
    n: int = 0
    total: int = 0  # sum of round(value x 1e9)
    squares: int = 0  # sum of their squares
    low: float = math.inf
    high: float = -math.inf
    bins: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Iterable[float | None], bin_width: float) -> Summary:
        """Summary of the values that are there and finite."""
        finite = [float(v) + 0.0 for v in values if v is not None and math.isfinite(v)]  # + 0.0: no -0.0
        scaled = [round(v * _UNIT) for v in finite]
        bins = Counter(math.ceil(v / bin_width) - 1 for v in finite)
        low, high = min(finite, default=math.inf), max(finite, default=-math.inf)
        return cls(bin_width, len(finite), sum(scaled), sum(s * s for s in scaled), low, high, dict(bins))

    def __add__(self, other: Summary) -> Summary:
        if self.bin_width != other.bin_width:
            raise ValueError(f"expected equal bin widths, got {self.bin_width} and {other.bin_width}")
        return Summary(
            self.bin_width,
            self.n + other.n,
            self.total + other.total,
            self.squares + other.squares,
            min(self.low, other.low),
            max(self.high, other.high),
            dict(Counter(self.bins) + Counter(other.bins)),
        )

    @property
    def mean(self) -> float:
        return self.total / self.n / _UNIT

    @property
    def std(self) -> float:
        """Standard deviation with n - 1; 0 for a single value."""
        centred = self.n * self.squares - self.total**2  # exact: n^2 times the variance
        return math.sqrt(centred / (self.n * max(self.n - 1, 1))) / _UNIT

    def percentile(self, p: float) -> float:
        """The upper end of the bin where the p-th percentile (0..100) falls, inside the range of the values: of faces
        that were kept as they were, whose similarity is 1, it is 1."""
        rank, seen = p / 100 * (self.n - 1), 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen > rank:
                return min(max((index + 1) * self.bin_width, self.low), self.high)
        raise ValueError("expected at least one value, got none")

    def to_json(self) -> dict[str, Any]:
        """For a commit record; `from_json` is the inverse."""
        if not self.n:
            return {"bin_width": self.bin_width, "n": 0}
        return {
            "bin_width": self.bin_width,
            "n": self.n,
            "total": self.total,
            "squares": self.squares,
            "low": self.low,
            "high": self.high,
            "bins": {str(index): count for index, count in sorted(self.bins.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        bins = {int(index): count for index, count in data.get("bins", {}).items()}
        return cls(**{**data, "bins": bins})

    def to_report(self) -> dict[str, Any]:
        """For people and run.json: mean, std, percentiles, and a histogram of bins ten times as wide."""
        coarse: Counter[int] = Counter()
        for index, count in self.bins.items():
            coarse[index // _COARSE] += count
        width = self.bin_width * _COARSE
        return {
            "n": self.n,
            "mean": self.mean,
            "std": self.std,
            "min": self.low,
            "max": self.high,
            **{f"p{p:02d}": self.percentile(p) for p in (5, 50, 95)},
            "bin_width": width,
            "histogram": [[index * width, count] for index, count in sorted(coarse.items())],
        }
