"""Decides what becomes of each restored face: it is kept as it was, replaced by the network's, or corrected.

A face may become one of a few candidates (`bfr_models.faces.candidates`). A judge says what each would be worth; the
one with the highest expected gain is taken, and the face is kept where none is sure enough of a gain. It is asked about
the corrected one only where the whole change is neither plainly good nor plainly bad. Without a judge every face is
replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bfr_models.faces.candidates import HALF, corrected, replaced, resized
from bfr_models.judge.decision import is_in_doubt, is_larger
from bfr_models.judge.judge import Judge
from bfr_models.judge.verdict import HarmLimits, Verdict
from bfr_models.pixels import Uint8Image
from bfr_models.rng import derive_seed
from tasks.config.care import Care
from tasks.runs.outcomes import CORRECTED, KEPT_ORIGINAL, RESTORED, why_kept

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
    pixels: Uint8Image | None = None  # that are drawn: square, of any size; None: the face stays as it is
    verdict: Verdict | None = None  # on what it becomes, or, where it is kept, on the best that it might have become

    @property
    def weight(self) -> float:
        """Of the drawn pixels, in (0, 1]; the rest is the input's."""
        return HALF if self.outcome == CORRECTED else 1.0

    def at(self, lq: Uint8Image) -> Uint8Image:
        """The face as it becomes, at the size of `lq`, which is the face as it was."""
        if self.pixels is None:
            return lq
        return corrected(self.pixels, lq) if self.outcome == CORRECTED else resized(self.pixels, len(lq))


class Decide:
    """Holds a run's judge, if it has one, and its limits."""

    def __init__(self, care: Care, judge: Judges | None) -> None:
        self._care, self._judge = care, judge
        self._limits = judge.harm_limits(care.max_harm) if judge else HarmLimits()
        self.needs_crops = judge is not None or care.grain == "keep"

    def draw(self, case: Case) -> Uint8Image:
        """The network's face as it would be put into the photo, square, of any size."""
        if not self.needs_crops:
            return case.restored
        seed = derive_seed(case.seed, "grain") if self._care.grain == "keep" else None
        return replaced(case.restored, case.crop, seed, case.scale)

    def choose(self, drawn: Sequence[tuple[Case, Uint8Image]]) -> list[Decision]:
        """What becomes of each face, given what `draw` made of it. Faces do not influence each other."""
        whole = [Decision(RESTORED, pixels) for _, pixels in drawn]
        if self._judge is None:
            return whole
        whole = self._judged([(case, pixels, one) for (case, pixels), one in zip(drawn, whole, strict=True)])
        doubtful = [n for n, one in enumerate(whole) if one.verdict and is_in_doubt(one.verdict.gain)]
        halves = self._judged(
            [
                (case, corrected(pixels, case.crop), Decision(CORRECTED, pixels))
                for case, pixels in (drawn[n] for n in doubtful)
            ]
        )
        half_of = dict(zip(doubtful, halves, strict=True))
        return [
            self._best(case, [one, *([half_of[n]] if n in half_of else [])])
            for n, ((case, _), one) in enumerate(zip(drawn, whole, strict=True))
        ]

    def _judged(self, candidates: Sequence[tuple[Case, Uint8Image, Decision]]) -> list[Decision]:
        """Each decision with the verdict on what the face would look like then."""
        if not candidates or self._judge is None:
            return []
        verdicts = self._judge.compare([case.crop for case, _, _ in candidates], [seen for _, seen, _ in candidates])
        return [
            replace(one, verdict=_rounded(verdict)) for (_, _, one), verdict in zip(candidates, verdicts, strict=True)
        ]

    def _best(self, case: Case, candidates: Sequence[Decision]) -> Decision:
        """The candidate with the highest gain among those within the limits; else the face is kept."""
        judged = sorted(((one.verdict, one) for one in candidates if one.verdict), key=lambda pair: -pair[0].gain)
        for verdict, one in judged:
            if self._limits.allow(verdict) and verdict.gain >= self._care.min_gain:
                return one
        return Decision(self._why_kept(case, candidates, judged[0][0]), verdict=judged[0][0])

    def _why_kept(self, case: Case, candidates: Sequence[Decision], best: Verdict) -> str:
        """Too large if the network's face, which has no detail of its own beyond its size, is expected to lose."""
        size, by_network = len(case.restored), candidates[0].verdict
        if is_larger(case.side, size) and by_network is not None and by_network.gain < 0:
            return f"{KEPT_ORIGINAL}: too large for {size} px"
        why = why_kept(best.gain, self._care.min_gain)
        return f"{KEPT_ORIGINAL}: {why} (gain {best.gain:.2f} ± {best.spread:.2f}, harm {best.harm:.2f})"


def _rounded(verdict: Verdict) -> Verdict:
    names = ("gain", "spread", "harm", "identity_gain")
    return replace(verdict, **{name: round(getattr(verdict, name), DIGITS) for name in names})


def load_decide(care: Care) -> Decide:
    """With the judge loaded, if there is one. BfrError if its weights here are others."""
    return Decide(care, Judge(care.judge) if care.judge else None)
