"""Identity gates by profile: how alike the restored face and its input must be. Imports no torch.

A threshold holds for one recogniser alone: two strangers are at a cosine of 0.0 for AdaFace and of 0.8 for dlib.
"""

from __future__ import annotations

from dataclasses import dataclass

from bfr_models.errors import UsageError, unknown

ADAFACE = "adaface_ir50_ms1mv2"


@dataclass(frozen=True)
class IdentityGate:
    """The lowest cosine of the embeddings of the restored face and of its degraded input, same landmarks for both."""

    profile: str
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


def gate_for(profile: str, recogniser: str) -> IdentityGate:
    """The gate of that profile for that recogniser; UsageError when there is none."""
    gates = [gate for gate in GATES if gate.profile == profile]
    if not gates:
        raise unknown("identity profile", profile, [gate.profile for gate in GATES])
    for gate in gates:
        if gate.recogniser == recogniser:
            return gate
    raise UsageError(
        f"expected the recogniser {gates[0].recogniser} for the identity profile {profile}, found {recogniser}, whose "
        "cosines are on another scale; give a number instead of a profile"
    )
