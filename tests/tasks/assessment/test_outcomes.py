"""What an assessment says a restore would do, and how damaged it calls a face."""

from __future__ import annotations

import itertools

import pytest

from bfr_models.judge.verdict import Damage, HarmLimits, Verdict
from tasks.assessment.outcomes import OUTCOMES, Limits, face_outcome, picture_outcome, severity

LIMITS = Limits(HarmLimits(0.1, 0.1), min_gain=0.05, size=128)
GAIN, LOSS, RISK = Verdict(0.4, 0.1, 0.01, 0.0), Verdict(-0.2, 0.1, 0.9, 0.0), Verdict(0.4, 0.4, 0.2, 0.0)
SMALL_GAIN, DOUBTFUL = Verdict(0.04, 0.01, 0.01, 0.0), Verdict(0.1, 0.1, 0.01, 0.0)
WORN, CLEAN = (1.3, 8.0, 0.45), (0.0, 0.5, 0.05)


@pytest.mark.parametrize(
    ("verdict", "damage", "side", "outcome"),
    [
        (GAIN, WORN, 100, "restored"),
        (GAIN, WORN, 300, "restored"),
        (DOUBTFUL, CLEAN, 100, "corrected"),
        (LOSS, CLEAN, 100, "kept"),
        (LOSS, CLEAN, 300, "kept"),
        (LOSS, WORN, 300, "too_large"),
        (RISK, WORN, 100, "kept"),
        (SMALL_GAIN, WORN, 100, "kept"),
    ],
)
def test_a_face_is_changed_where_it_gains(
    verdict: Verdict, damage: tuple[float, float, float], side: float, outcome: str
) -> None:
    assert face_outcome(Damage(*damage, verdict), side, LIMITS) == outcome


def test_with_all_harm_allowed_every_face_is_restored() -> None:
    assert face_outcome(Damage(*CLEAN, LOSS), 300, Limits(HarmLimits(), min_gain=0.05, size=128)) == "restored"


def test_severity_grows_with_every_kind_of_damage_from_0_to_1() -> None:
    assert severity(0, 0, 0) == 0
    assert severity(2, 0, 0) == 0.5 and severity(0, 20, 0) == 0.5 and severity(0, 0, 0.5) == 0.25
    assert 0.3 < severity(0.6, 3, 0.2) < 0.4 and 0.6 < severity(1.3, 8, 0.45) < 0.7
    for less, more in itertools.pairwise([(0, 0, 0), (1, 0, 0), (1, 5, 0), (1, 5, 0.5), (9, 90, 1)]):
        assert severity(*less) < severity(*more) <= 1


def test_a_picture_has_the_outcome_that_matters_most_of_its_faces() -> None:
    assert picture_outcome(["kept", "restored", "too_small"]) == "restored"
    assert picture_outcome(["too_small", "too_large", "kept"]) == "kept"
    assert picture_outcome([]) == "none_found"
    assert len(set(OUTCOMES)) == len(OUTCOMES)
