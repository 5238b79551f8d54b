"""Summaries add exactly, in any order, and describe the values that went in."""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bfr_models.metrics.summary import Summary

WIDTH = 0.01
VALUES = st.lists(st.floats(-1000, 1000), max_size=40)
SOME_VALUES = st.lists(st.floats(-1000, 1000), min_size=1, max_size=40)


def written(summary: Summary) -> str:
    return json.dumps(summary.to_json())


@given(VALUES, st.lists(st.integers(0, 40), max_size=5), st.randoms(use_true_random=False))
def test_any_split_merged_in_any_order_is_the_same_to_the_last_byte(
    values: list[float], cuts: list[int], random: Any
) -> None:
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [Summary.of(values[a:b], WIDTH) for a, b in pairwise(edges)]
    random.shuffle(parts)
    merged = sum(parts, start=Summary(WIDTH))
    whole = Summary.of(values, WIDTH)
    assert merged == whole
    assert written(merged) == written(whole)


@given(SOME_VALUES)
def test_mean_std_and_range_are_those_of_the_values(values: list[float]) -> None:
    """Each value is rounded to 1e-9, so a mean moves by half of that at most, and so does a deviation, but for the
    float64 rounding of numpy's own sums."""
    summary = Summary.of(values, WIDTH)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-9, rel=1e-12)
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    assert summary.std == pytest.approx(deviation, abs=2e-9, rel=1e-9)
    assert (summary.low, summary.high) == (min(values), max(values))


def test_the_deviation_of_nearly_equal_values_does_not_cancel() -> None:
    values = [30 + 1e-6 * i for i in range(1000)]
    assert Summary.of(values, WIDTH).std == pytest.approx(np.std(values, ddof=1), rel=1e-6)


@given(SOME_VALUES, st.floats(0, 100))
def test_percentiles_are_good_to_a_bin(values: list[float], p: float) -> None:
    rank = p / 100 * (len(values) - 1)
    assume(abs(rank - round(rank)) > 1e-9 or rank == round(rank))  # numpy may round the other way
    expected = np.percentile(values, p, method="lower")
    assert abs(Summary.of(values, WIDTH).percentile(p) - expected) <= WIDTH


@given(SOME_VALUES)
def test_percentiles_stay_inside_the_range_and_in_order(values: list[float]) -> None:
    summary = Summary.of(values, WIDTH)
    found = [summary.percentile(p) for p in (0, 5, 50, 95, 100)]
    assert found == sorted(found)
    assert summary.low <= found[0] and found[-1] <= summary.high


@given(VALUES)
def test_a_summary_survives_json(values: list[float]) -> None:
    summary = Summary.of(values, WIDTH)
    assert Summary.from_json(json.loads(written(summary))) == summary


def test_values_that_are_absent_or_infinite_are_not_counted() -> None:
    assert Summary.of([1.0, None, math.nan, math.inf, -math.inf, 2.0], WIDTH) == Summary.of([1.0, 2.0], WIDTH)


def test_zero_has_no_sign() -> None:
    assert written(Summary.of([-0.0], WIDTH)) == written(Summary.of([0.0], WIDTH))


def test_summaries_of_two_resolutions_do_not_add() -> None:
    with pytest.raises(ValueError, match=r"equal bin widths, got 0\.01 and 0\.1"):
        Summary(0.01) + Summary(0.1)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        Summary(WIDTH).percentile(50)


def test_the_report_has_the_numbers_that_people_read() -> None:
    report = Summary.of([i + 0.5 for i in range(101)], 1.0).to_report()
    assert (report["n"], report["mean"], report["min"], report["max"]) == (101, 50.5, 0.5, 100.5)
    assert (report["p05"], report["p50"], report["p95"]) == (6, 51, 96)
    assert report["bin_width"] == 10  # coarser: for the eye
    assert report["histogram"] == [[10.0 * i, 10] for i in range(10)] + [[100.0, 1]]


def test_the_percentiles_of_faces_that_were_kept_are_not_below_their_mean() -> None:
    report = Summary.of([*[1.0] * 99, 0.998], 0.001).to_report()
    assert (report["p05"], report["p50"], report["p95"]) == (1.0, 1.0, 1.0)


def test_the_best_score_shares_the_bin_below_it() -> None:
    assert Summary.of([1.0], 0.5).bins == {1: 1}  # (0.5, 1]
