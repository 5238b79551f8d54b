"""Scores of restored faces, on the pixels that are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bfr_models.faces.types import Recogniser
from bfr_models.metrics.fidelity import psnr, sharpness, ssim
from bfr_models.metrics.identity import cosine
from bfr_models.pixels import Uint8Image

RESTORED, KEPT_ORIGINAL = "restored", "kept_original"


@dataclass(frozen=True)
class ScoredFace:
    """A face as it is written, and its scores."""

    face: Uint8Image
    outcome: str  # KEPT_ORIGINAL where the identity was lost
    identity_similarity: float | None  # of the restored face, also where it was not kept
    identity_similarity_gt: float | None
    psnr: float | None
    ssim: float | None
    sharpness: float


def score(
    lq: Uint8Image,
    restored: Uint8Image,
    gt: Uint8Image | None,
    recogniser: Recogniser | None,
    min_identity: float | None,
) -> ScoredFace:
    """Scores one face. Below `min_identity` the input's pixels stay, and it is they that are compared to gt."""
    similarity = _similarity(recogniser, lq, restored)
    lost = similarity is not None and min_identity is not None and similarity < min_identity
    face = lq if lost else restored
    return ScoredFace(
        face=face,
        outcome=KEPT_ORIGINAL if lost else RESTORED,
        identity_similarity=similarity,
        identity_similarity_gt=None if gt is None else _similarity(recogniser, gt, face),
        psnr=None if gt is None else psnr(face, gt),
        ssim=None if gt is None else ssim(face, gt),
        sharpness=sharpness(face),
    )


def _similarity(recogniser: Recogniser | None, reference: Uint8Image, face: Uint8Image) -> float | None:
    """The cosine of two faces; equal pixels need no network. None without a recogniser."""
    if recogniser is None:
        return None
    if np.array_equal(reference, face):
        return 1.0
    pair = recogniser.embed([reference, face])
    return float(cosine(pair[:1], pair[1:])[0])
