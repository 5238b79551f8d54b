"""Ready-made quality gates of `bfr curate`: SQL conditions by name.

Each recogniser has its own scale of cosines: two strangers are at about 0.0 for ArcFace and AdaFace, at 0.83 for dlib.
"""

from __future__ import annotations

from bfr_models.errors import UsageError, unknown
from bfr_models.faces.recognisers import ADAFACE, ARCFACE, DLIB
from bfr_models.metrics.identity_gates import gate_for

_WILD, _CELEBA = (gate_for(profile, ADAFACE).threshold for profile in ("wild", "celeba"))
IDENTITY = {
    "archive": {ADAFACE: _WILD, ARCFACE: _WILD, DLIB: 0.88},
    "training-set": {ADAFACE: _CELEBA, ARCFACE: _CELEBA, DLIB: 0.94},
}
"""Profile -> recogniser -> the lowest cosine between a restored face and its input. AdaFace's are the gates of the
NTIRE 2025 challenge, and serve for ArcFace, a network of the same kind, as well. dlib's are one third and two thirds of
the way from strangers to a perfect copy."""

GATES = {
    "archive": ("faces_found > 0",),  # there is a face and, by the threshold, it is still the same person
    "training-set": (
        "faces_found = 1",
        "faces[1].outcome = 'restored'",
        "faces[1].sharpness >= 2.5",  # grey levels per pixel; below it a face of 128 px looks blurred
        "least(faces[1].box[3] - faces[1].box[1], faces[1].box[4] - faces[1].box[2]) >= 64",  # px in the input
    ),
}
"""Profile -> conditions, the cheapest reason to drop a row first."""

PROFILES = tuple(GATES)


def profile_conditions(profile: str, recogniser: str | None) -> list[str]:
    """The conditions of a profile for a run. UsageError for an unknown profile, or a recogniser without threshold."""
    if profile not in GATES:
        raise unknown("profile", profile, PROFILES)
    thresholds = IDENTITY[profile]
    if recogniser not in thresholds:
        raise UsageError(
            f"expected a run scored by {' or '.join(thresholds)} for the profile {profile}, found "
            f"{recogniser or 'no recogniser'}; give conditions of your own with --where"
        )
    return [*GATES[profile], f"identity_similarity >= {thresholds[recogniser]}"]
