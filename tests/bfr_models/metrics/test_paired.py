"""Intervals that hold the mean as often as they say, and wins that count ties as half."""

import numpy as np
import pytest

from bfr_models.metrics.paired import bootstrap_interval, paired_wins


def test_the_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(3.0, 2.0, size=60).tolist(), seed=i) for i in range(300)]
    held = sum(low <= 3.0 <= high for low, high in intervals)
    assert 0.90 * 300 <= held <= 0.99 * 300  # binomial: 6 standard deviations to either side


def test_the_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(2).normal(size=5000)
    low, high = bootstrap_interval(values.tolist())
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)


def test_the_interval_is_the_same_every_time_and_a_point_for_one_value() -> None:
    assert bootstrap_interval([1.0, 2.0, 5.0]) == bootstrap_interval([1.0, 2.0, 5.0])
    assert bootstrap_interval([4.0]) == (4.0, 4.0)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


def test_wins_are_shares_of_the_rows() -> None:
    ours, theirs = [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 1.0]
    assert paired_wins(ours, theirs) == (2 + 0.5) / 4
    assert paired_wins(ours, theirs, lower_is_better=True) == (1 + 0.5) / 4
    assert paired_wins(ours, theirs) + paired_wins(theirs, ours) == 1
    with pytest.raises(ValueError, match="two values per row"):
        paired_wins(ours, theirs[:3])
