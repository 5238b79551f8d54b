"""The batch grows while that pays and fits, and soon stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.worker.batches import MOST, START, BatchSize, is_out_of_memory


def settled(device: str, seconds: Any, memory: int = 10**6, calls: int = 60) -> list[int]:
    """The batch sizes of `calls` calls: n faces take seconds(n), and more than `memory` faces do not fit."""
    batch, taken = BatchSize("auto", device), []
    for _ in range(calls):
        taken.append(n := batch.now)
        if n > memory:
            batch.too_large(n)
        else:
            batch.note(n, seconds(n))
    return taken


def test_it_grows_to_the_most_where_a_call_costs_the_same_whatever_it_holds() -> None:
    taken = settled("cuda", lambda n: 1.0)
    assert taken[:5] == [4, 4, 8, 8, 16] and taken[-1] == MOST["cuda"]


def test_a_cpu_where_faces_cost_the_same_stays_small_after_a_few_calls() -> None:
    taken = settled("cpu", lambda n: 0.5 * n)
    assert taken[:4] == [2, 2, 4, 4] and set(taken[4:]) == {2}


@given(st.floats(0, 10), st.floats(0.01, 1), st.integers(1, 200), st.sampled_from(["cpu", "cuda"]))
def test_it_settles_on_one_that_fits_and_is_nearly_the_fastest(
    call: float, face: float, memory: int, device: str
) -> None:
    taken = settled(device, lambda n: call + n * face, memory)
    last = taken[-1]
    assert len(set(taken[20:])) == 1 and last <= min(memory, MOST[device])
    if 2 * last <= min(memory, MOST[device]) and last >= START[device]:
        assert 2 * (call + last * face) / (call + 2 * last * face) < 1.1 + 1e-9


def test_one_that_was_asked_for_stays_until_it_does_not_fit() -> None:
    batch = BatchSize(12, "cuda:1")
    for _ in range(9):
        batch.note(12, 1.0)
    assert batch.now == 12
    batch.too_large(12)
    assert batch.now == 6
    batch.too_large(1)
    assert batch.now == 1


def test_batches_that_the_rows_did_not_fill_say_nothing() -> None:
    batch = BatchSize("auto", "cuda")
    for _ in range(9):
        batch.note(3, 1.0)
    assert batch.now == START["cuda"]


def test_torchs_own_errors_are_known() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**58)
    assert is_out_of_memory(error.value) and is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("not this face"))
