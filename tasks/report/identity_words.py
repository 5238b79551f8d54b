"""What the identity similarities of a run's rows say, in words, each for the size of its face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.faces.template import ALIGNED_BOX, TEMPLATE_SIDE
from bfr_models.metrics.identity_scale import identity_word

BOX_SHARE = (ALIGNED_BOX[2] - ALIGNED_BOX[0]) / TEMPLATE_SIDE  # of the face square's side: a detector's box


def face_side(face: Mapping[str, Any]) -> float:
    """The side of a face's square in its picture, px, from an entry of the column `faces`. An aligned face, which has
    no landmarks there, is its own square."""
    if (known := face.get("side")) is not None:
        return float(known)
    x0, _, x1, _ = face["box"]
    side = float(x1 - x0)
    return side if face["landmarks"] is None else side / BOX_SHARE


def face_word(face: Mapping[str, Any], recogniser: str | None) -> str | None:
    """The word for one entry of the column `faces`; None if it was not measured."""
    return identity_word(recogniser, face["identity_similarity"], face_side(face))


def row_word(row: Mapping[str, Any], recogniser: str | None) -> str | None:
    """The word for a row's identity similarity, which is the lowest of its faces."""
    measured = [face for face in row.get("faces") or () if face["identity_similarity"] is not None]
    if not measured:
        return identity_word(recogniser, row.get("identity_similarity"))
    return face_word(min(measured, key=lambda face: float(face["identity_similarity"])), recogniser)
