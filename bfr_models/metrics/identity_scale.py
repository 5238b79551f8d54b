"""What an identity similarity means: a word for people, from a scale measured on real pairs. Imports no torch.

A cosine is read beside two marks of its recogniser: `strangers`, below which 99 % of pairs of different people lie, and
`same_person`, above which 95 % of pairs of photos of one person lie, taken on different days. Between them it is more
likely the same person than not. Below a size the recogniser cannot tell people apart, and no number helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from bfr_models.faces.recognisers import ADAFACE, ARCFACE, DLIB

SAME, PROBABLY, DOUBTFUL, NOT_CHECKABLE = WORDS = (
    "same person",
    "probably the same person",
    "doubtful",
    "not checkable at this size",
)


@dataclass(frozen=True)
class IdentityScale:
    """The marks of one recogniser, as cosines."""

    recogniser: str
    typical_strangers: float  # the mean of two different people
    strangers: float  # their 99th percentile
    same_person: float  # the 5th percentile of two photos of one person
    typical_same: float  # their median
    smallest: int  # px: the side of the face square in the picture from which the recogniser tells people apart
    origin: str

    def word(self, cosine: float, side: float | None = None) -> str:
        """What a similarity says of a face whose square is `side` px wide in its picture; None: not known, or large."""
        if side is not None and side < self.smallest:
            return NOT_CHECKABLE
        if cosine >= self.same_person:
            return SAME
        return PROBABLY if cosine >= self.strangers else DOUBTFUL


SCALES = (
    IdentityScale(
        DLIB, 0.84, 0.925, 0.954, 0.973, 32,
        "benchmarks/identity_scale.py: 82 pairs of official portraits, two of each member of Congress; 586,000 pairs "
        "of different members, 1887 to today (99th percentile 0.925), and 460,000 of today's (mean 0.84, 0.905). At "
        "32 px 99 % of the pairs are still told from strangers, at 24 px 83 %, at 16 px 37 %",
    ),
    IdentityScale(
        ARCFACE, 0.0, 0.32, 0.5, 0.6, 32,
        "not measured here: strangers lie near 0; DeepFace's threshold for ArcFace is 0.32 (a distance of 0.68); the "
        "upper marks are AdaFace's",
    ),
    IdentityScale(
        ADAFACE, 0.0, 0.3, 0.5, 0.6, 32,
        "not measured here: the NTIRE 2025 challenge's thresholds (arXiv 2504.14600) are 0.3 for pictures in the wild, "
        "0.5 and 0.6 for clearer ones",
    ),
)  # fmt: skip


def scale_of(recogniser: str | None) -> IdentityScale | None:
    """The scale of the recogniser of that name; None for one without."""
    return next((scale for scale in SCALES if scale.recogniser == recogniser), None)


def identity_word(recogniser: str | None, cosine: float | None, side: float | None = None) -> str | None:
    """The word for a similarity; None without one, or without a scale."""
    scale = scale_of(recogniser)
    return None if scale is None or cosine is None else scale.word(cosine, side)
