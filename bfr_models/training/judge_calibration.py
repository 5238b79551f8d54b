"""From the judge's predictions on people held out to probabilities that hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bfr_models.judge.decision import Numbers

LIMITS = tuple(np.round(np.geomspace(0.003, 0.5, 40), 4).tolist())
EQUAL = 0.02
"""Share of the distance by which a loss counts as one: less is not seen."""
POINTS = tuple((np.linspace(0, 1, 51) ** 2).round(5).tolist())


def calibrate(raw: Numbers, is_worse: NDArray[np.bool_]) -> list[list[float]]:
    """Rows (raw probability, share of the pairs that did lose), both rising: an isotonic regression."""
    order = np.argsort(raw)
    values = _isotonic(is_worse[order].astype(float))
    shares = np.interp(POINTS, raw[order], values)
    return [[point, round(float(share), 5)] for point, share in zip(POINTS, shares, strict=True)]


def harm_curve(items: Sequence[object], gains: Numbers, harm: Numbers, true_gains: Numbers) -> list[list[float]]:
    """Rows (limit, share of all faces that are restored and worse, share of faces restored, share of the best possible
    gain that is had): what happens if of each item's candidates within the limit the one of the highest predicted gain
    is taken, and none if there is none or it promises a loss. One more is counted as worse than were, since few faces
    may look harmless by chance."""
    rows_of: dict[object, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        rows_of[item].append(row)
    best = sum(max(0.0, *true_gains[rows]) for rows in rows_of.values())
    curve = []
    for limit in LIMITS:
        taken = []
        for rows in rows_of.values():
            allowed = [row for row in rows if harm[row] <= limit and gains[row] > 0]
            if allowed:
                taken.append(max(allowed, key=lambda row: float(gains[row])))
        had = true_gains[taken]
        worse = (int((had < -EQUAL).sum()) + 1) / (len(rows_of) + 1)
        curve.append([limit, worse, len(taken) / len(rows_of), float(had.sum()) / best if best else 0.0])
    return [[round(value, 4) for value in row] for row in curve]


def reliability(harm: Numbers, is_worse: NDArray[np.bool_], bins: int = 10) -> list[list[float]]:
    """Rows (mean predicted probability, true share, number of pairs), in bins of predicted probability."""
    edges = np.linspace(0, 1, bins + 1)
    rows = []
    for low, high in pairwise(edges):
        inside = (harm >= low) & ((harm < high) | (high == 1))
        if inside.any():
            rows.append(
                [round(float(harm[inside].mean()), 4), round(float(is_worse[inside].mean()), 4), int(inside.sum())]
            )
    return [[round(value, 4) for value in row] for row in rows]


def _isotonic(values: Numbers) -> Numbers:
    """The rising sequence that is nearest in squares: neighbours that fall are pooled."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] >= mean:
            other, others = blocks.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        blocks.append((mean, count))
    return np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
