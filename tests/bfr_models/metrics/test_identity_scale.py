"""What people are told of an identity similarity."""

from __future__ import annotations

import pytest

from bfr_models.faces.recognisers import RECOGNISERS
from bfr_models.metrics.identity_scale import SCALES, identity_word, scale_of

DLIB = RECOGNISERS["dlib"]


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.recogniser)
def test_the_marks_of_a_scale_are_in_order_and_say_where_they_come_from(scale: object) -> None:
    found = scale_of(scale.recogniser)  # type: ignore[attr-defined]
    assert found is scale and found is not None
    assert found.typical_strangers < found.strangers < found.same_person < found.typical_same < 1
    assert found.smallest > 0 and found.origin


def test_every_recogniser_has_a_scale() -> None:
    assert {scale.recogniser for scale in SCALES} == set(RECOGNISERS.values())


@pytest.mark.parametrize(
    ("cosine", "side", "word"),
    [
        (0.98, None, "same person"),
        (0.98, 200, "same person"),
        (0.94, 200, "probably the same person"),
        (0.9, 200, "doubtful"),
        (0.98, 15, "not checkable at this size"),
        (None, 200, None),
    ],
)
def test_a_word_for_a_similarity_at_a_size(cosine: float | None, side: float | None, word: str | None) -> None:
    assert identity_word(DLIB, cosine, side) == word
    assert identity_word("another network", cosine, side) is None
