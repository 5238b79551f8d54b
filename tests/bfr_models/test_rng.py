"""Seeds that never change, and noise that belongs to one face."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfr_models.rng import OneStream, RowNoise, derive_seed

SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("run_seed", "row_id", "seed"),
    [
        (0, "", 7556725741714545743),
        (0, "a", 787122455340873193),
        (7, "album-3/0042.jpg", 6138393780584807432),
        (-1, "ארכיון", 2414126953089872574),
    ],
)
def test_seeds_are_the_same_in_every_version(run_seed: int, row_id: str, seed: int) -> None:
    """A change here changes every face of every run that is resumed."""
    assert derive_seed(run_seed, row_id) == seed


@given(st.integers(), st.text(st.characters(codec="utf-8")))
def test_seeds_fit_a_signed_64_bit_column(run_seed: int, row_id: str) -> None:
    assert 0 <= derive_seed(run_seed, row_id) < 2**63


def test_run_seed_and_row_id_do_not_run_into_each_other() -> None:
    assert len({derive_seed(1, "23"), derive_seed(12, "3"), derive_seed(123, "")}) == 3


@given(SEEDS, st.randoms(use_true_random=False))
def test_a_face_gets_its_noise_in_whatever_batch_it_travels(seeds: list[int], random: object) -> None:
    together = RowNoise(seeds)(3, 4)
    for row, seed in enumerate(seeds):
        assert torch.equal(together[row : row + 1], RowNoise([seed])(3, 4))


def test_each_call_goes_on_where_the_last_one_stopped() -> None:
    noise = RowNoise([1, 2])
    first, second = noise(3, 32, 32), noise(3, 32, 32)
    assert not torch.equal(first, second)
    generator = torch.Generator().manual_seed(2)
    for drawn in (first, second):
        assert torch.equal(drawn[1], torch.randn(3, 32, 32, generator=generator))


def test_other_random_numbers_of_the_process_change_nothing() -> None:
    noise = RowNoise([5])
    torch.manual_seed(99)
    torch.randn(7)
    assert torch.equal(noise(8), RowNoise([5])(8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_starts_from_the_same_noise() -> None:
    drawn = RowNoise([1, 2], "cuda")(3, 8, 8)
    assert drawn.is_cuda and torch.equal(drawn.cpu(), RowNoise([1, 2])(3, 8, 8))


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_the_images_of_one_stream_go_on_where_those_before_them_stopped(seed: int, places: list[int]) -> None:
    everything = torch.randn(7, 3, 2, 16, generator=torch.Generator().manual_seed(seed))  # (image, draw, ...)
    stream = OneStream(3)
    noise = stream.noise([seed] * len(places), places)
    for draw in range(3):
        assert torch.equal(noise(2, 16), everything[places, draw])
    (again,) = stream.noise([seed], [places[0]])(2, 16)
    assert torch.equal(again, everything[places[0], 0])
