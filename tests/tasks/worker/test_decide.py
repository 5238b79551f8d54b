"""What becomes of a face, by what the judge says of its candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bfr_models.judge.verdict import Verdict
from tasks.config.care import Care
from tasks.worker.decide import Case, Decide, Decision
from tests import support
from tests.judges import BAD, CHOICE, GOOD, Says, SetJudge

SIZE = 64
CAREFUL = Care(CHOICE, max_harm=0.02, min_gain=0.02, size="input", grain="clean")


def case_of(side: int = SIZE, seed: int = 3) -> Case:
    return Case(support.portrait(1, side), support.portrait(2, SIZE), float(side), seed)


def decided(says: Says, *cases: Case, **care: Any) -> list[Decision]:
    decide = Decide(replace(CAREFUL, **care), SetJudge(says))
    return decide.choose([(case, decide.draw(case)) for case in cases])


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (GOOD, "restored"),
        (replace(GOOD, harm=0.2), "restored"),  # the limit that the curve gives for 2 %
        (replace(GOOD, harm=0.21), "kept_original: too likely to be worse (gain 0.30 ± 0.10, harm 0.21)"),
        (replace(GOOD, gain=0.02), "restored"),
        (replace(GOOD, gain=0.019), "kept_original: no gain expected (gain 0.02 ± 0.10, harm 0.01)"),
        (BAD, "kept_original: no gain expected (gain -0.12 ± 0.08, harm 0.61)"),
    ],
)
def test_a_face_is_restored_within_both_limits_and_else_kept_with_the_reason(verdict: Verdict, outcome: str) -> None:
    (found,) = decided(lambda face, candidate: verdict, case_of())
    assert (found.outcome, found.verdict) == (outcome, verdict)
    assert (found.pixels is None) == outcome.startswith("kept")


def test_a_stricter_limit_on_harm_keeps_more() -> None:
    unsure = replace(GOOD, harm=0.15)
    for max_harm, word in ((0.02, "restored"), (0.01, "kept_original"), (0.005, "kept_original")):
        (found,) = decided(lambda face, candidate: unsure, case_of(), max_harm=max_harm)
        assert found.outcome.partition(":")[0] == word


def test_where_no_limit_is_low_enough_nothing_is_restored() -> None:
    (found,) = decided(lambda face, candidate: replace(GOOD, harm=0.0), case_of(), max_harm=0)
    assert found.outcome.startswith("kept_original")


def test_where_the_whole_change_is_in_doubt_half_of_it_is_looked_at_and_the_better_one_taken() -> None:
    def outcome(whole: Verdict, half: Verdict, case: Case) -> Decision:
        drawn = Decide(CAREFUL, SetJudge(lambda face, candidate: whole)).draw(case)
        (found,) = decided(lambda face, candidate: whole if np.array_equal(candidate, drawn) else half, case)
        return found

    small, large = case_of(), case_of(160)
    for case in (small, large):
        found = outcome(replace(GOOD, gain=0.1), replace(GOOD, gain=0.15), case)
        assert found.outcome == "corrected" and found.weight == 0.5 and found.verdict is not None
        assert found.verdict.gain == 0.15
    found = outcome(replace(GOOD, gain=0.1), replace(GOOD, gain=0.09), small)
    assert found.outcome == "restored" and found.weight == 1
    assert outcome(BAD, replace(GOOD, gain=0.03), small).outcome == "corrected"
    assert (
        outcome(replace(GOOD, gain=0.1), replace(GOOD, gain=0.15, harm=0.9), small).outcome == "restored"
    )  # too risky


@pytest.mark.parametrize("gain", [-0.31, 0.21])
def test_half_of_what_is_plainly_bad_or_plainly_good_is_not_looked_at(gain: float) -> None:
    judge = SetJudge(lambda face, candidate: replace(GOOD, gain=gain))
    decide, case = Decide(CAREFUL, judge), case_of()
    decide.choose([(case, decide.draw(case))])
    assert len(judge.seen) == 1


def test_what_is_judged_of_a_corrected_face_is_half_way() -> None:
    judge = SetJudge(lambda face, candidate: replace(GOOD, gain=0.1))
    decide, case = Decide(CAREFUL, judge), case_of(96)
    drawn = decide.draw(case)
    decide.choose([(case, drawn)])
    (_, whole), (_, half) = judge.seen
    assert np.array_equal(whole, drawn) and half.shape == case.crop.shape
    assert np.abs(half.astype(float) - (case.crop.astype(float) + whole) / 2).max() <= 0.5


def test_a_large_face_that_the_network_would_soften_is_too_large_for_it() -> None:
    assert decided(lambda face, candidate: BAD, case_of(160))[0].outcome == "kept_original: too large for 64 px"
    doubtful = replace(GOOD, harm=0.9)
    assert decided(lambda face, candidate: doubtful, case_of(160))[0].outcome.startswith("kept_original: too likely")


def test_faces_of_a_batch_get_their_own_verdicts() -> None:
    cases = [case_of(160), case_of(), replace(case_of(), crop=support.portrait(5, SIZE))]
    bad = cases[1].crop
    found = decided(lambda face, candidate: BAD if np.array_equal(face, bad) else GOOD, *cases)
    assert [one.outcome.partition(":")[0] for one in found] == ["restored", "kept_original", "restored"]


def test_a_verdict_counts_as_it_is_recorded() -> None:
    (found,) = decided(lambda face, candidate: Verdict(0.0199999, 0.1, 0.2000001, 0.0), case_of())
    assert found.outcome == "restored" and found.verdict == Verdict(0.02, 0.1, 0.2, 0.0)


def test_without_a_judge_the_networks_face_is_taken_bit_for_bit() -> None:
    decide, case = Decide(Care(), None), case_of(160)
    assert not decide.needs_crops
    (found,) = decide.choose([(case, decide.draw(case))])
    assert found.outcome == "restored" and found.pixels is case.restored and found.verdict is None


def test_grain_comes_from_the_seed() -> None:
    noisy = (support.portrait(1, SIZE) + np.random.default_rng(0).normal(0, 3, (SIZE, SIZE, 3))).clip(0, 255)
    case = replace(case_of(), crop=noisy.astype(np.uint8))

    def pixels(seed: int, grain: str) -> Any:
        return decided(lambda face, candidate: GOOD, replace(case, seed=seed), grain=grain)[0].pixels

    assert np.array_equal(pixels(3, "keep"), pixels(3, "keep"))
    assert not np.array_equal(pixels(3, "keep"), pixels(4, "keep"))
    assert np.array_equal(pixels(3, "clean"), case.restored)
