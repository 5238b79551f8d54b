"""Identity gates by profile: how similar the restored face and its input must be. Imports no torch.

A threshold is valid for one recogniser only: two different people have a cosine near 0.0 by AdaFace and 0.8 by dlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bfr_models.errors import UsageError, unknown
from bfr_models.faces.recognisers import ADAFACE

Profile = Literal["celeba", "lfw", "childhood", "wild", "webphoto"]
PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True)
class IdentityGate:
    """The lowest accepted cosine between the embeddings of a restored face and its degraded input, both aligned by the
    same landmarks."""

    profile: Profile | None  # None: a number was given
    threshold: float
    recogniser: str
    source: str


_NTIRE = "NTIRE 2025 challenge on real-world face restoration (arXiv 2504.14600): its evaluation script"

GATES = (
    IdentityGate("celeba", 0.5, ADAFACE, _NTIRE),
    IdentityGate("lfw", 0.6, ADAFACE, _NTIRE),
    IdentityGate("childhood", 0.6, ADAFACE, _NTIRE),
    IdentityGate("wild", 0.3, ADAFACE, _NTIRE),
    IdentityGate("webphoto", 0.3, ADAFACE, _NTIRE),
)


def gate_of(asked: float | Profile, recogniser: str) -> IdentityGate:
    """The gate at that number, or of that profile, for the recogniser of that name."""
    if isinstance(asked, str):
        return gate_for(asked, recogniser)
    return IdentityGate(None, asked, recogniser, "a number that was given")


def gate_for(profile: str, recogniser: str) -> IdentityGate:
    """The gate of that profile for that recogniser; UsageError when there is none."""
    gates = [gate for gate in GATES if gate.profile == profile]
    if not gates:
        raise unknown("identity profile", profile, PROFILES)
    for gate in gates:
        if gate.recogniser == recogniser:
            return gate
    raise UsageError(
        f"expected the recogniser {gates[0].recogniser} for the identity profile {profile}, found {recogniser}, whose "
        "cosines are on another scale; choose that recogniser, or give a number instead of a profile"
    )
