"""How sure the judge has to be, and whom it may judge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bfr_models.judge.decision import choose_judge, harm_limit
from bfr_models.registry import resolve_method
from bfr_models.training.judge_calibration import LIMITS, calibrate, harm_curve, raw_probabilities

CURVE = [[0.01, 0.0, 0.2, 0.5], [0.05, 0.015, 0.4, 0.9], [0.2, 0.05, 0.6, 1.0]]


@pytest.mark.parametrize(("max_harm", "limit"), [(0.0, 0.01), (0.02, 0.05), (0.05, 0.2), (1.0, 1.0)])
def test_the_limit_keeps_the_harm(max_harm: float, limit: float) -> None:
    assert harm_limit(CURVE, max_harm) == limit


def test_nothing_is_restored_if_no_limit_is_low_enough() -> None:
    assert harm_limit([[0.01, 0.03, 0.2, 0.5]], 0.02) == 0.0


def test_a_judge_of_other_networks_is_refused() -> None:
    method = resolve_method("difface")
    assert choose_judge(method) is not None
    stranger = dataclasses.replace(method, weights={**method.weights, "prior": {"file": "x", "sha256": "0" * 64}})
    assert choose_judge(stranger) is None
    assert choose_judge(resolve_method("passthrough")) is None  # nothing to judge


def test_raw_probability_of_a_loss() -> None:
    raw = raw_probabilities(np.array([0.0, 1.0, -1.0]), np.array([1.0, 1.0, 1.0]))
    assert raw == pytest.approx([0.5, 0.1587, 0.8413], abs=1e-4)


def test_calibration_follows_what_happened_and_rises() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0, 1, 200_000)
    table = np.array(calibrate(raw, rng.uniform(0, 1, 200_000) < raw**2))  # the judge is too afraid
    assert np.all(np.diff(table[:, 1]) >= 0)
    assert np.abs(table[:, 1] - table[:, 0] ** 2).max() < 0.05


def test_the_harm_curve_counts_faces_not_candidates() -> None:
    items = ["a", "a", "b", "c"]
    predicted, harm = np.array([0.3, 0.2, 0.1, -0.1]), np.array([0.1, 0.01, 0.4, 0.9])
    true = np.array([-0.2, 0.2, 0.1, -0.3])
    curve = {row[0]: row[1:] for row in harm_curve(items, predicted, harm, true)}
    low, high = LIMITS[10], LIMITS[-1]
    # Of a the second candidate, b and c are kept; then of a the first, which is worse, and b. One more counts as worse.
    assert curve[low] == pytest.approx([1 / 4, 1 / 3, 0.2 / 0.3], abs=1e-3)
    assert curve[high] == pytest.approx([2 / 4, 2 / 3, -0.1 / 0.3], abs=1e-3)
