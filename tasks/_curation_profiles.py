"""Ready-made quality gates of `bfr curate`: SQL conditions by name.

Cosines are on a scale of each recogniser's own: two strangers are at about 0.0 for ArcFace and 0.83 for dlib.
"""

from __future__ import annotations

from bfr_models.errors import UsageError, unknown
from tasks.recognisers import ARCFACE, DLIB

IDENTITY = {
    "archive": {ARCFACE: 0.3, DLIB: 0.88},
    "training-set": {ARCFACE: 0.5, DLIB: 0.94},
}
"""Profile -> recogniser -> the lowest cosine of a restored face and its input. ArcFace's are those of the NTIRE 2025
challenge (wild, celeba: arXiv 2504.14600), made for another network of its kind; dlib's lie a third and two thirds of
the way from strangers to a perfect copy."""

GATES = {
    "archive": ("faces_found > 0",),  # something to show, still the same person
    "training-set": (
        "faces_found = 1",
        "faces[1].outcome = 'restored'",
        "faces[1].sharpness >= 2.5",  # grey levels a pixel: below it a face of 128 px looks blurred
        "least(faces[1].box[3] - faces[1].box[1], faces[1].box[4] - faces[1].box[2]) >= 64",  # px of the input
    ),
}
"""Profile -> conditions, from the cheapest reason to drop a row on."""

PROFILES = tuple(GATES)


def profile_conditions(profile: str, recogniser: str | None) -> list[str]:
    """The conditions of a profile for a run. UsageError for an unknown one, and where no threshold is known."""
    if profile not in GATES:
        raise unknown("profile", profile, PROFILES)
    thresholds = IDENTITY[profile]
    if recogniser not in thresholds:
        raise UsageError(
            f"expected a run scored by {' or '.join(thresholds)} for the profile {profile}, found "
            f"{recogniser or 'no recogniser'}; give conditions of your own with --where"
        )
    return [*GATES[profile], f"identity_similarity >= {thresholds[recogniser]}"]
