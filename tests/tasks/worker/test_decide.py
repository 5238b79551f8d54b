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
    return decide.choose([(case, decide.candidates(case)) for case in cases])


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (GOOD, "restored"),
        (replace(GOOD, harm=0.2), "restored"),  # the limit that the curve gives for 2 %
        (replace(GOOD, harm=0.21), "kept_original: no gain expected (gain 0.30 ± 0.10, harm 0.21)"),
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


def test_only_a_face_larger_than_the_network_may_be_corrected_and_the_better_candidate_is_taken() -> None:
    small, large = case_of(80), case_of(160)
    decide = Decide(CAREFUL, SetJudge(lambda face, candidate: GOOD))
    assert [one.outcome for one in decide.candidates(small)] == ["restored"]
    assert [one.outcome for one in decide.candidates(large)] == ["restored", "corrected"]
    verdicts = iter([replace(GOOD, gain=0.1), GOOD])
    (found,) = decided(lambda face, candidate: next(verdicts), large)
    assert found.outcome == "corrected" and found.change is not None and found.change.shape == (SIZE, SIZE, 3)
    verdicts = iter([replace(GOOD, gain=0.1), BAD])
    (found,) = decided(lambda face, candidate: next(verdicts), large)
    assert found.outcome == "restored" and found.change is None
    verdicts = iter([replace(GOOD, gain=0.2), replace(GOOD, gain=0.9, harm=0.9)])  # more, but too risky
    assert decided(lambda face, candidate: next(verdicts), large)[0].outcome == "restored"


def test_a_large_face_that_the_network_would_soften_is_too_large_for_it() -> None:
    assert decided(lambda face, candidate: BAD, case_of(160))[0].outcome == "kept_original: too large for 64 px"
    doubtful = replace(GOOD, harm=0.9)
    assert decided(lambda face, candidate: doubtful, case_of(160))[0].outcome.startswith("kept_original: no gain")


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
    (found,) = decide.choose([(case, decide.candidates(case))])
    assert found.outcome == "restored" and found.pixels is case.restored and found.verdict is None


def test_grain_comes_from_the_seed() -> None:
    noisy = (support.portrait(1, SIZE) + np.random.default_rng(0).normal(0, 3, (SIZE, SIZE, 3))).clip(0, 255)
    case = replace(case_of(), crop=noisy.astype(np.uint8))

    def pixels(seed: int, grain: str) -> Any:
        return decided(lambda face, candidate: GOOD, replace(case, seed=seed), grain=grain)[0].pixels

    assert np.array_equal(pixels(3, "keep"), pixels(3, "keep"))
    assert not np.array_equal(pixels(3, "keep"), pixels(4, "keep"))
    assert np.array_equal(pixels(3, "clean"), case.restored)
