"""From the judge's predictions on people held out to probabilities that hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bfr_models.judge.decision import Numbers

LIMITS = tuple(np.round(np.geomspace(0.003, 0.5, 80), 4).tolist())
EQUAL = 0.02
"""Share of the distance by which a loss counts as one: less is not seen."""
_SURE = 1e-6
POINTS = tuple((np.linspace(0, 1, 51) ** 3).round(6).tolist())


def calibrate(raw: Numbers, is_worse: NDArray[np.bool_]) -> list[list[float]]:
    """Rows (raw probability, share of the pairs that lose), both rising: beta calibration (Kull et al. 2017), which, in
    contrast to an isotonic regression, has no steps within which one pair is as good as another."""
    weights = _logistic(_beta_features(raw), is_worse.astype(float))
    shares = 1 / (1 + np.exp(-_beta_features(np.array(POINTS)) @ weights))
    return [[point, round(float(share), 6)] for point, share in zip(POINTS, np.maximum.accumulate(shares), strict=True)]


def harm_curve(items: Sequence[object], gains: Numbers, harm: Numbers, true_gains: Numbers) -> list[list[float]]:
    """Rows (limit, most that the share of all faces that are restored and worse may be, share of faces restored, share
    of the best possible gain that is had): what happens if of each item's candidates within the limit the one of the
    highest predicted gain is taken, and none if there is none or it promises a loss. The share is an upper bound of
    95 %, since few faces may look harmless by chance."""
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
        worse = min(1.0, _at_most(int((had < -EQUAL).sum())) / len(rows_of))
        curve.append([limit, worse, len(taken) / len(rows_of), float(had.sum()) / best if best else 0.0])
    return [[round(value, 4) for value in row] for row in curve]


def strictest(curve: Sequence[Sequence[float]], others: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """The curve with the largest share of all: a limit that holds for all faces together may still spoil the good ones
    among them, and an archive may have more of those than the faces that it was measured on."""
    shares = [max(row[1] for row in rows) for rows in zip(curve, *others, strict=True)]
    return [[limit, share, *rest] for (limit, _, *rest), share in zip(curve, shares, strict=True)]


def _at_most(count: int) -> float:
    """Upper bound, with a confidence of 95 %, of the mean of a Poisson variable that was `count` once (Wilson and
    Hilferty's approximation)."""
    n = count + 1
    return float(n * (1 - 1 / (9 * n) + 1.645 / (3 * n**0.5)) ** 3)


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


def _beta_features(raw: Numbers) -> Numbers:
    """(n, 3): ln p, -ln(1 - p), 1."""
    p = raw.clip(_SURE, 1 - _SURE)
    return np.stack([np.log(p), -np.log1p(-p), np.ones_like(p)], axis=1)


def _logistic(x: Numbers, y: Numbers, steps: int = 100) -> Numbers:
    """Weights of a logistic regression of y in {0, 1} on (n, k), by Newton's method; a slight ridge keeps them near
    those that change nothing."""
    start = np.array([*[1.0] * (x.shape[1] - 1), 0.0])

    def loss(weights: Numbers) -> float:
        z = x @ weights
        return float((np.logaddexp(0, z) - y * z).sum() + ((weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ weights).clip(-30, 30)))
        gradient = x.T @ (p - y) + (weights - start)
        hessian = (x.T * (p * (1 - p))) @ x + np.eye(x.shape[1])
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights):  # too far, where the probabilities are near 0 and 1
            step = step / 2
            if np.abs(step).max() < _SURE:
                return weights
        weights = weights - step
    return weights
