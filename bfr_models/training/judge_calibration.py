"""From the judge's predictions on people held out to probabilities that hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc
from sklearn.isotonic import IsotonicRegression

from bfr_models.training.judge_pairs import Pair

Numbers = NDArray[np.float64]

HARD = ("clean", "worn")
"""The kinds of faces by which the limits are chosen: of spoilt ones nearly all gain, and would hide the others' harm."""


def raw_probabilities(predicted: Numbers) -> Numbers:
    """Of a gain below 0, if gains were normal: `predicted` has columns gain and spread."""
    return np.asarray(erfc(predicted[:, 0] / predicted[:, 1] / sqrt(2)) / 2)


def calibrate(predicted: Numbers, gains: Numbers) -> list[list[float]]:
    """Rows (raw probability, share of the pairs that did lose), both rising."""
    raw = raw_probabilities(predicted)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(raw, gains < 0)
    points = np.linspace(0, 1, 101) ** 2
    return [[round(float(x), 5), round(float(y), 5)] for x, y in zip(points, fitted.predict(points), strict=True)]
