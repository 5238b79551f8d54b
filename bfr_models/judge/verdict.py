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
    is_grey: bool = False
    """Whether the face has no colours: such pictures have limits of their own."""


@dataclass(frozen=True)
class HarmLimits:
    """Up to which `Verdict.harm` a candidate may be taken, in pictures with colours and without. 0 allows none: no
    risk, however small, has been seen to be low enough. 1 allows all."""

    colour: float = 1.0
    grey: float = 1.0

    def allow(self, verdict: Verdict) -> bool:
        """Whether the candidate may be taken."""
        limit = self.grey if verdict.is_grey else self.colour
        return limit > 0 and verdict.harm <= limit


@dataclass(frozen=True)
class Damage:
    """What is wrong with a face, as the judge sees it without any candidate."""

    blur: float  # sigma in px of the face at 128 px
    noise: float  # standard deviation in grey levels, in px of the photo
    compression: float  # 0 none to 1 worst: (100 - JPEG quality) / 100
    verdict: Verdict  # on the best candidate that a method of `face128` or `face256` would have
