"""What a restore would do with a face and with a picture, by what the judge predicts without a candidate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bfr_models.judge.decision import is_in_doubt, is_larger
from bfr_models.judge.verdict import Damage, HarmLimits

RESTORED, CORRECTED, KEPT, TOO_LARGE, TOO_SMALL, OVER_THE_CAP, FAILED, NOT_JUDGED = FACE_OUTCOMES = (
    "restored", "corrected", "kept", "too_large", "too_small", "over_the_cap", "failed", "not_judged",
)  # fmt: skip
NONE_FOUND, REJECTED = "none_found", "rejected"
OUTCOMES = (*FACE_OUTCOMES, NONE_FOUND, REJECTED)
"""Of pictures, from what matters most to what matters least; a picture's is the first of its faces' in this order."""

NEEDS_WORK = 0.3  # severity from which a face that is too large counts as one that a larger network should see

_HALF_BLUR, _HALF_NOISE = 2.0, 20.0  # px at 128 px, grey levels: what counts as half of the worst


def severity(blur: float, noise: float, compression: float) -> float:
    """How damaged a face is, in [0, 1]: 1 - (1 - b)(1 - n)(1 - c).

    b = blur / (blur + 2 px at 128 px), n = noise / (noise + 20 grey levels), c = compression squared: JPEG 80 is 0.04,
    JPEG 30 is 0.49. One kind of damage suffices for a high value, and further kinds add to it.
    """
    b, n, c = blur / (blur + _HALF_BLUR), noise / (noise + _HALF_NOISE), compression**2
    return 1 - (1 - b) * (1 - n) * (1 - c)


@dataclass(frozen=True)
class Limits:
    """From when on a face is restored."""

    harm: HarmLimits
    min_gain: float
    size: int  # the network's, px


def face_outcome(damage: Damage, side: float, limits: Limits) -> str:
    """What becomes of a face whose square is `side` px wide in the photo.

    It is restored if the predicted gain suffices and the predicted harm is allowed; corrected instead if the gain is so
    small that half of the change may well be better. If it is damaged, larger than the network and would not gain, a
    larger network may serve it.
    """
    if limits.harm == HarmLimits():
        return RESTORED  # whatever it is worth
    verdict = damage.verdict
    if limits.harm.allow(verdict) and verdict.gain > 0 and verdict.gain >= limits.min_gain:
        return CORRECTED if is_in_doubt(verdict.gain) else RESTORED
    is_damaged = severity(damage.blur, damage.noise, damage.compression) >= NEEDS_WORK
    return TOO_LARGE if is_larger(side, limits.size) and is_damaged else KEPT


def picture_outcome(faces: Collection[str]) -> str:
    """The outcome of a picture with these faces."""
    return min(faces, key=OUTCOMES.index, default=NONE_FOUND)
