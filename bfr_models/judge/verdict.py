"""What the judge says. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A prediction of how a candidate compares with the face as it is."""

    gain: float
    """Share of the face's perceptual distance to its unknown clean self that the candidate takes away: 1 is all of it,
    0 none; below 0 the candidate is further away, and -1 is as far as can be."""
    spread: float
    """Standard deviation of `gain`."""
    harm: float
    """Probability that the candidate is further from the clean face, in [0, 1], calibrated."""
    identity_gain: float
    """Change of the recogniser's cosine to the clean face."""


@dataclass(frozen=True)
class Damage:
    """What is wrong with a face, as the judge sees it without any candidate."""

    blur: float  # sigma in px of the face at 128 px
    noise: float  # standard deviation in grey levels, in px of the photo
    compression: float  # 0 none to 1 worst: (100 - JPEG quality) / 100
    verdict: Verdict  # on the best candidate that a method of `face128` would have
