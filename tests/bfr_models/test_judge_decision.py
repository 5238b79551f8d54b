"""How sure the judge has to be, and whom it may judge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bfr_models.judge.decision import KINDS, choose_judge, harm_limits, harm_of, raw_probabilities
from bfr_models.judge.verdict import HarmLimits, Verdict
from bfr_models.registry import resolve_method
from bfr_models.training.judge_calibration import LIMITS, calibrate, harm_curve, strictest

CURVE = [[0.01, 0.0, 0.2, 0.5], [0.05, 0.015, 0.4, 0.9], [0.2, 0.05, 0.6, 1.0]]


@pytest.mark.parametrize(("max_harm", "limit"), [(0.0, 0.01), (0.02, 0.05), (0.05, 0.2), (1.0, 1.0)])
def test_the_limit_keeps_the_harm(max_harm: float, limit: float) -> None:
    card = {"harm_curve": {"colour": CURVE, "grey": [[0.01, 0.0]]}}
    assert harm_limits(card, max_harm) == HarmLimits(limit, 1.0 if max_harm >= 1 else 0.01)


def test_nothing_is_restored_if_no_limit_is_low_enough() -> None:
    limits = harm_limits({"harm_curve": {kind: [[0.01, 0.03, 0.2, 0.5]] for kind in KINDS}}, 0.02)
    assert limits == HarmLimits(0, 0) and not limits.allow(Verdict(0.5, 0.1, 0.0, 0.0))


@pytest.mark.parametrize("method", ["estimator", "difface", "diffbfr", "clr_face"])
@pytest.mark.parametrize("preset", ["face128", "face256"])
def test_the_judge_that_ships_knows_the_networks_that_ship(method: str, preset: str) -> None:
    assert choose_judge(resolve_method(method, preset)) is not None


def test_a_judge_of_other_networks_is_refused() -> None:
    method = resolve_method("difface")
    assert choose_judge(method) is not None
    stranger = dataclasses.replace(method, weights={**method.weights, "prior": {"file": "x", "sha256": "0" * 64}})
    assert choose_judge(stranger) is None
    assert choose_judge(resolve_method("passthrough")) is None  # nothing to judge


def test_raw_probability_of_a_loss() -> None:
    raw = raw_probabilities(np.array([0.0, 1.0, -1.0]), np.array([1.0, 1.0, 1.0]))
    assert raw == pytest.approx([0.5, 0.1587, 0.8413], abs=1e-4)


def test_grey_pictures_have_a_calibration_of_their_own() -> None:
    card = {"calibration": {"colour": [[0, 0], [1, 0.5]], "grey": [[0, 0.2], [1, 1]]}}
    found = harm_of(card, np.array([0.0, 0.5, 0.5]), np.array([True, True, False]))
    assert found == pytest.approx([0.2, 0.6, 0.25])


def test_calibration_follows_what_happened_and_rises() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0, 1, 200_000)
    table = np.array(calibrate(raw, rng.uniform(0, 1, 200_000) < raw**2))  # the judge is too afraid
    assert np.all(np.diff(table[:, 1]) >= 0) and np.all(np.diff(table[table[:, 0] > 0.01, 1]) > 0)
    assert np.abs(table[:, 1] - table[:, 0] ** 2).max() < 0.02


def test_the_harm_curve_counts_faces_not_candidates() -> None:
    items = ["a", "a", "b", "c"]
    predicted, harm = np.array([0.3, 0.2, 0.1, -0.1]), np.array([0.1, 0.01, 0.4, 0.9])
    true = np.array([-0.2, 0.2, 0.1, -0.3])
    curve = {row[0]: row[1:] for row in harm_curve(items, predicted, harm, true)}
    low, high = LIMITS[20], LIMITS[-1]
    # Of a the second candidate, b and c are kept; then of a the first, which is worse, and b. None of three faces may
    # be one of three in truth.
    assert curve[low] == pytest.approx([0.99, 1 / 3, 0.2 / 0.3], abs=0.01)
    assert curve[high] == pytest.approx([1, 2 / 3, -0.1 / 0.3], abs=1e-3)


@pytest.mark.parametrize(("worse", "most"), [(0, 3.00), (1, 4.74), (5, 10.51), (20, 29.06)])
def test_the_share_that_is_worse_is_an_upper_bound_of_95_percent(worse: int, most: float) -> None:
    """Against the exact bounds of a Poisson mean, half the quantile 0.95 of chi squared with 2 (n + 1) degrees."""
    n = 1000
    true = np.where(np.arange(n) < worse, -0.2, 0.1)
    row = harm_curve(range(n), np.full(n, 0.1), np.zeros(n), true)[0]
    assert row[1] * n == pytest.approx(most, abs=0.05)


def test_a_limit_holds_within_each_class_of_damage() -> None:
    of_all = [[0.1, 0.01, 0.3, 0.5], [0.2, 0.02, 0.4, 0.6]]
    of_clean, of_worn = [[0.1, 0.0, 0.1, 0.0], [0.2, 0.07, 0.2, 0.0]], [[0.1, 0.03, 0.5, 0.9], [0.2, 0.04, 0.6, 0.9]]
    assert strictest(of_all, [of_clean, of_worn]) == [[0.1, 0.03, 0.3, 0.5], [0.2, 0.07, 0.4, 0.6]]
