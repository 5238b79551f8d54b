"""Judges that say what a test wants, and the way to have a run judged by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from bfr_models.judge.decision import KINDS, harm_limits
from bfr_models.judge.verdict import HarmLimits, Verdict
from bfr_models.pixels import Uint8Image
from bfr_models.types import NetworkChoice

CURVE = [[0.05, 0.01], [0.2, 0.02], [0.5, 0.1]]
GOOD, BAD = Verdict(0.3, 0.1, 0.01, 0.0), Verdict(-0.12, 0.08, 0.61, 0.0)
CHOICE = NetworkChoice("judge", "1" * 64)

Says = Callable[[Uint8Image, Uint8Image], Verdict]


class SetJudge:
    """Says of each face and candidate what `says` does; `seen` are the pairs that it was asked about."""

    def __init__(self, says: Says) -> None:
        self.says, self.seen = says, list[tuple[Uint8Image, Uint8Image]]()

    def compare(self, faces: Sequence[Uint8Image], candidates: Sequence[Uint8Image]) -> list[Verdict]:
        pairs = list(zip(faces, candidates, strict=True))
        self.seen += pairs
        return [self.says(*pair) for pair in pairs]

    def harm_limits(self, max_harm: float) -> HarmLimits:
        return harm_limits({"harm_curve": dict.fromkeys(KINDS, CURVE)}, max_harm)


def judge_runs(monkeypatch: pytest.MonkeyPatch, says: Says, choice: NetworkChoice = CHOICE) -> SetJudge:
    """Runs of this process, whatever their method, are judged by it."""
    judge = SetJudge(says)
    monkeypatch.setattr("tasks.config.care.choose_judge", lambda method: choice)
    monkeypatch.setattr("tasks.worker.decide.Judge", lambda choice: judge)
    return judge
