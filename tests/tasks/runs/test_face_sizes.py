"""What a run says of faces that are larger than its preset can draw."""

from __future__ import annotations

import pytest

from bfr_models.registry import resolve_method
from tasks.runs.face_sizes import too_small, what_serves


@pytest.mark.parametrize(
    ("method", "side", "advice"),
    [
        ("difface", 200, "--preset face256 draws 256 px"),
        ("difface", 500, "--preset ffhq512 draws 512 px; fetch it with `bfr weights fetch"),
        ("difface", 3000, "--preset ffhq512 draws 512 px; fetch it with `bfr weights fetch"),
        ("clr_face", 200, "--preset face256 draws 256 px"),
        ("clr_face", 500, "--method difface --preset ffhq512 draws 512 px; fetch it with `bfr weights fetch"),
    ],
)
def test_the_preset_that_is_named_draws_the_median_face_if_any_does(method: str, side: float, advice: str) -> None:
    assert what_serves(resolve_method(method), side).startswith(advice)


def test_faces_that_fit_are_no_matter() -> None:
    sizes = {"n": 100, "median": 140.0, "network": 256, "larger": 0.04}
    assert too_small(resolve_method("difface", "face256"), sizes) is None
    assert too_small(resolve_method("difface", "face256"), sizes | {"larger": 0.06}) is not None
