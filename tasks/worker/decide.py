"""Decides what becomes of each restored face: it is kept as it was, replaced by the network's, or corrected.

A face may become one of a few candidates (`bfr_models.faces.candidates`). A judge says what each would be worth; the
one with the highest expected gain is taken, and the face is kept where none is sure enough of a gain. Without a judge
every face is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from bfr_models.faces.candidates import correction, replaced, with_change
from bfr_models.faces.grain import FloatImage
from bfr_models.judge.decision import is_larger
from bfr_models.judge.judge import Judge
from bfr_models.judge.verdict import HarmLimits, Verdict
from bfr_models.pixels import Uint8Image
from bfr_models.rng import derive_seed
from tasks.config.care import Care
from tasks.runs.outcomes import CORRECTED, KEPT_ORIGINAL, RESTORED

JUDGED_SIDE = 512
"""Largest side of a face that the judge was trained on, px; a larger one is shrunk to it."""
DIGITS = 4
"""A verdict counts to this many decimals: what is behind them depends on the batch."""


class Judges(Protocol):
    """What is asked of a judge."""

    def compare(self, faces: Sequence[Uint8Image], candidates: Sequence[Uint8Image]) -> list[Verdict]: ...

    def harm_limits(self, max_harm: float) -> HarmLimits: ...


@dataclass(frozen=True, eq=False)
class Case:
    """A face before and after the method."""

    crop: Uint8Image  # square, at the photo's own scale, at most `JUDGED_SIDE`
    restored: Uint8Image  # square, at the network's size
    side: float  # of the face, px of the photo
    seed: int
    scale: int = 1  # by how much the photo is enlarged


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of a face."""

    outcome: str
    pixels: Uint8Image | None = None  # square, of any size; None: those of the input
    change: FloatImage | None = None  # of a corrected face, which is the photo plus this: square, in grey levels
    verdict: Verdict | None = None  # on what it becomes, or, where it is kept, on the best that it might have become


class Decide:
    """Holds a run's judge, if it has one, and its limits."""

    def __init__(self, care: Care, judge: Judges | None) -> None:
        self._care, self._judge = care, judge
        self._limits = judge.harm_limits(care.max_harm) if judge else HarmLimits()
        self.needs_crops = judge is not None or care.grain == "keep"

    def candidates(self, case: Case) -> list[Decision]:
        """What a face may become, apart from what it is."""
        if not self.needs_crops:
            return [Decision(RESTORED, case.restored)]
        seed = derive_seed(case.seed, "grain") if self._care.grain == "keep" else None
        found = [Decision(RESTORED, replaced(case.restored, case.crop, seed, case.scale))]
        if self._judge and is_larger(len(case.crop), len(case.restored)):
            change = correction(case.restored, case.crop)
            found.append(Decision(CORRECTED, with_change(case.crop, change), _levels(change)))
        return found

    def choose(self, cases: Sequence[tuple[Case, list[Decision]]]) -> list[Decision]:
        """One of the candidates of each face, or to keep it. Faces do not influence each other."""
        if self._judge is None:
            return [candidates[0] for _, candidates in cases]
        pairs = [(case.crop, one.pixels) for case, candidates in cases for one in candidates if one.pixels is not None]
        faces, pixels = zip(*pairs, strict=True)
        verdicts = iter(self._judge.compare(faces, pixels))
        return [
            self._best(case, [replace(one, verdict=_rounded(next(verdicts))) for one in candidates])
            for case, candidates in cases
        ]

    def _best(self, case: Case, candidates: list[Decision]) -> Decision:
        """The candidate with the highest gain among those within the limits; else the face is kept."""
        judged = sorted(((one.verdict, one) for one in candidates if one.verdict), key=lambda pair: -pair[0].gain)
        for verdict, one in judged:
            if self._limits.allow(verdict) and verdict.gain >= self._care.min_gain:
                return one
        return Decision(_why_kept(case, candidates, judged[0][0]), verdict=judged[0][0])


def _why_kept(case: Case, candidates: list[Decision], best: Verdict) -> str:
    """Too large if the network's face, which has no detail of its own beyond its size, is expected to lose."""
    size, by_network = len(case.restored), candidates[0].verdict
    if is_larger(case.side, size) and by_network is not None and by_network.gain < 0:
        return f"{KEPT_ORIGINAL}: too large for {size} px"
    numbers = f"gain {best.gain:.2f} ± {best.spread:.2f}, harm {best.harm:.2f}"
    return f"{KEPT_ORIGINAL}: no gain expected ({numbers})"


def _levels(change: Tensor) -> FloatImage:
    """(3, size, size) in units of half the range -> (size, size, 3) in grey levels."""
    return np.ascontiguousarray(change.mul(127.5).movedim(0, -1).numpy())


def _rounded(verdict: Verdict) -> Verdict:
    names = ("gain", "spread", "harm", "identity_gain")
    return replace(verdict, **{name: round(getattr(verdict, name), DIGITS) for name in names})


def load_decide(care: Care) -> Decide:
    """With the judge loaded, if there is one. BfrError if its weights here are others."""
    return Decide(care, Judge(care.judge) if care.judge else None)
