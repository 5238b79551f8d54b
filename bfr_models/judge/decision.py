"""Whose faces the judge may judge, and how sure it has to be. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from bfr_models.judge.verdict import HarmLimits
from bfr_models.registry import ResolvedMethod
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import Card, find_weight, read_card

Numbers = NDArray[np.float64]

JUDGE = "judge"
"""Stem of its weight file."""
KINDS = ("colour", "grey")
"""Of pictures, as the card's calibrations are named."""
LARGER = 1.25
"""From a side this many times the network's on, a face has detail that the network cannot draw."""

DOUBTFUL = (-0.3, 0.2)
"""Predicted gains of a whole change between which half of it is looked at as well."""


def is_larger(side: float, size: int) -> bool:
    """Whether a face of `side` px is larger than a network of `size` px can draw it."""
    return side > LARGER * size


def is_in_doubt(gain: float) -> bool:
    """Whether half of a change may be worth more than all of it or none; `gain` is predicted for all of it."""
    return DOUBTFUL[0] <= gain <= DOUBTFUL[1]


def choose_judge(method: ResolvedMethod) -> NetworkChoice | None:
    """The judge, with its checksum, if it was trained on this method's faces: it is not trusted with those of other
    networks. None without one."""
    path = find_weight(JUDGE)
    if path is None:
        return None
    card = read_card(path)
    known = set(card["networks"].values())
    judged = {weight["sha256"] for weight in method.weights.values()}
    return NetworkChoice(JUDGE, card["sha256"]) if judged and judged <= known else None


def harm_limits(card: Card, max_harm: float) -> HarmLimits:
    """The probabilities of harm up to which a face is restored, so that at most a share of `max_harm` of the faces in
    pictures with colours, and of those without, comes out worse than it went in."""
    return HarmLimits(*(_harm_limit(card["harm_curve"][kind], max_harm) for kind in KINDS))


def _harm_limit(curve: Sequence[Sequence[float]], max_harm: float) -> float:
    """`curve` has rows (limit, share of all faces that are worse, ...), as measured on people held out. The result is
    0, so that nothing is restored, where no limit is low enough, and 1 for a `max_harm` of 1.
    """
    if max_harm >= 1:
        return 1.0
    allowed = [limit for limit, share, *_ in curve if share <= max_harm]
    return max(allowed, default=0.0)


def raw_probabilities(gains: Numbers, spreads: Numbers) -> Numbers:
    """Of a gain below 0, if it were normal with the predicted mean and spread."""
    return np.array([erfc(ratio / sqrt(2)) / 2 for ratio in (gains / spreads).tolist()])


def harm_of(card: Card, raw: Numbers, is_grey: NDArray[np.bool_]) -> Numbers:
    """The judge's calibrated probabilities of harm, from those of its means and spreads.

    Pictures with and without colours have calibrations of their own: grain is a part of old prints, and what looks
    equally sure goes wrong there more often.
    """
    of_colour, of_grey = (np.interp(raw, *np.array(card["calibration"][kind]).T) for kind in KINDS)
    return np.where(is_grey, of_grey, of_colour)
