"""Histograms for a page: bars and ticks in shares of a plot's width and height, the same scales for all of a kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_BARS = 40
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Kind:
    """What is plotted."""

    key: str
    title: str
    axis: str
    digits: int
    counted: str = "faces"


KINDS = (
    Kind("identity_similarity", "Identity similarity", "cosine, restored to input", 2, "rows"),
    Kind("gain", "Expected gain", "share of the distance to a clean face taken away", 2),
    Kind("sharpness_input", "Sharpness before", "grey levels per px, at the network's size", 0),
    Kind("sharpness", "Sharpness after", "grey levels per px, at the network's size", 0),
    Kind("seconds", "Seconds on the accelerator", "s per row", 2, "rows"),
)


@dataclass(frozen=True)
class Plot:
    """One histogram; `x`, `width` and `height` of bars, and all places, from 0 to 1."""

    name: str
    kind: Kind
    stat: Mapping[str, Any]
    bars: Sequence[tuple[float, float, float, float, float, int]]  # x, width, height, from, to, count
    ticks: Sequence[tuple[float, float]]  # place, value
    top: int  # of the axis
    span: tuple[float, float]

    def place(self, value: float) -> float:
        """Where a value is, which may be outside."""
        return (value - self.span[0]) / (self.span[1] - self.span[0])


def plots(kind: Kind, stats: Sequence[tuple[str, Mapping[str, Any]]], least: float | None = None) -> list[Plot]:
    """One plot for each named statistic (as `Summary.to_report` gives them) that has a histogram; `least` is shown
    too, if it is lower than all values."""
    found = [(name, stat) for name, stat in stats if stat.get("histogram")]
    if not found:
        return []
    width = max(float(stat["bin_width"]) for _, stat in found)
    counts = [Counter[int]() for _ in found]
    for into, (_, stat) in zip(counts, found, strict=True):
        positive = (stat.get("min") or 0) >= 0  # then what is 0 itself, the end of the bin before, is in the first one
        for left, count in stat["histogram"]:
            index = math.floor(left / width + 1e-6)
            into[max(index, 0) if positive else index] += count
    low, high = min(min(one) for one in counts), max(max(one) for one in counts) + 1
    low = low if least is None else min(low, math.floor(least / width + 1e-6))
    wide = _round_up((high - low) / MOST_BARS)
    low = low // wide * wide
    span = (low * width, (low + -(-(high - low) // wide) * wide) * width)
    merged = [_merged(one, low, wide) for one in counts]
    top = _ceiling(max(max(one.values()) for one in merged))
    return [
        Plot(name, kind, stat, list(_bars(one, low, wide, width, span, top)), _ticks(span), top, span)
        for (name, stat), one in zip(found, merged, strict=True)
    ]


def _merged(counts: Mapping[int, int], low: int, wide: int) -> Counter[int]:
    merged = Counter[int]()
    for index, count in counts.items():
        merged[(index - low) // wide] += count
    return merged


def _bars(counts: Mapping[int, int], low: int, wide: int, width: float, span: tuple[float, float], top: int) -> Any:
    size = span[1] - span[0]
    for index, count in sorted(counts.items()):
        left = (low + index * wide) * width
        yield (left - span[0]) / size, wide * width / size, count / top, left, left + wide * width, count


def _ticks(span: tuple[float, float]) -> list[tuple[float, float]]:
    size = span[1] - span[0]
    step = 10 ** math.floor(math.log10(size / 2))
    step = next(step * m for m in (1, 2, 5, 10) if size / (step * m) <= 6)
    first = math.ceil(span[0] / step - 1e-6)
    return [((n * step - span[0]) / size, n * step) for n in range(first, math.floor(span[1] / step + 1e-6) + 1)]


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 1
    while True:
        for step in _STEPS:
            if step * power >= number:
                return step * power
        power *= 10


def _ceiling(count: float) -> int:
    """The next round number, for the top of an axis."""
    power = int(10 ** math.floor(math.log10(max(count, 2))))
    return next(m * power for m in (1, 2, 3, 4, 5, 6, 8, 10) if m * power >= max(count, 2))
