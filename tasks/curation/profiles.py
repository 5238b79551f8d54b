"""Ready-made quality gates of `bfr curate`: SQL conditions by name.

Cosines are on a scale of each recogniser's own: two strangers are at about 0.0 for ArcFace and AdaFace, 0.83 for dlib.
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
"""Profile -> recogniser -> the lowest cosine of a restored face and its input. AdaFace's are gates of the NTIRE 2025
challenge, taken for ArcFace, a network of its kind, as well; dlib's lie a third and two thirds of the way from
strangers to a perfect copy."""

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
