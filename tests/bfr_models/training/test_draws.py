"""The random numbers of a step are its faces', not its processes'."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bfr_models.training.draws import Draws
from tests.draws import draws_of


def drawn(draws: Draws) -> list[torch.Tensor]:
    return [draws.uniform(2), draws(3, 2), draws.integers(5, 900), draws.stratified()]


@given(batch_size=st.integers(2, 12), at=st.data(), seed=st.integers(0, 2**40), step=st.integers(0, 2**40))
def test_a_share_draws_what_the_whole_batch_draws_there(
    batch_size: int, at: st.DataObject, seed: int, step: int
) -> None:
    first = at.draw(st.integers(0, batch_size - 1))
    end = at.draw(st.integers(first + 1, batch_size))
    whole = drawn(Draws(seed, step, range(batch_size), batch_size))
    share = drawn(Draws(seed, step, range(first, end), batch_size))
    assert all(torch.equal(one[first:end], other) for one, other in zip(whole, share, strict=True))


def test_steps_seeds_and_faces_draw_differently_and_the_same_once_more() -> None:
    found = {tuple(Draws(seed, step, range(2), 2).uniform().tolist()) for seed in (0, 1) for step in (0, 1)}
    assert len({number for pair in found for number in pair}) == 8
    assert torch.equal(draws_of(3).uniform(4), draws_of(3).uniform(4))


def test_some_of_the_faces_go_on_where_they_were() -> None:
    draws, again = draws_of(5), draws_of(5)
    draws.uniform(), again.uniform()
    chosen = torch.tensor([False, True, False, True, True])
    assert torch.equal(draws.of(chosen).uniform(2), again.uniform(2)[chosen])
    assert draws.of(chosen).numbers.tolist() == [1, 3, 4]


def test_a_batch_is_covered_evenly_whoever_has_it() -> None:
    parts = [Draws(0, 7, range(first, first + 4), 16).stratified() for first in range(0, 16, 4)]
    assert torch.cat(parts).mul(16).long().sort().values.tolist() == list(range(16))
