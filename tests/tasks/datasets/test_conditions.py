"""Conditions have so much time and memory, whatever they ask for."""

from __future__ import annotations

import resource
import time

import psutil
import pyarrow as pa
import pytest

from bfr_models.errors import UsageError
from tasks.datasets import conditions
from tasks.datasets.conditions import check_conditions, rows_where

ROWS = pa.table({"id": ["a", "b", "c"], "x": [1.0, None, 3.0]})


def long_running() -> str:
    """A few hundred characters that count to billions."""
    condition = "1"
    for name in "abcdefghijkl":
        condition = f"list_sum([{condition} for {name} in [1,2,3,4,5,6,7,8]])"
    return f"{condition} > 0"


def large() -> str:
    """Text that becomes eight times as long, ten times over."""
    text = "id"
    for name in "abcdefghij":
        text = f"[{'||'.join([name] * 8)} for {name} in [{text}]][1]"
    return f"length({text}) > 1"


def test_several_conditions_are_evaluated_at_once() -> None:
    assert rows_where(ROWS, ["x > 0.5", "id != 'c'"]).tolist() == [[True, False, True], [True, True, False]]
    assert rows_where(ROWS, []).shape == (0, 3)
    check_conditions(["x > 1"], ROWS.schema)
    with pytest.raises(UsageError, match=r'columns id, x; found.*"y"'):
        check_conditions(["x > 1", "y > 1"], ROWS.schema)


@pytest.mark.parametrize("condition", [long_running(), large()], ids=["time", "memory"])
def test_a_condition_that_asks_for_too_much_ends(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "MAX_SECONDS", 4.0)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(UsageError, match=r"at most 4 s and 1024 MiB|cannot evaluate"):
        rows_where(ROWS, [condition])
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 3 * 2**20) + 1  # KiB
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children


def test_the_process_knows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert set(conditions.environment()) <= {"PYTHONPATH", "ARROW_DEFAULT_MEMORY_POOL", "PATH", "LD_LIBRARY_PATH"}
