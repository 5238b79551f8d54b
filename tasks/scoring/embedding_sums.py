"""Sums of the recogniser's embeddings, one pair per commit record.

A Fréchet distance needs the mean and covariance of a set, nothing of a single face. Embeddings identify people, so each
shard keeps only what its faces add up to, unless the run was told to keep them.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics
from bfr_models.types import NetworkChoice
from tasks.scoring.face_vectors import FaceFeatures

SIDES = ("restored", "gt")


_AT_ONCE = 64  # shards whose sums are held before they are folded into one; each is a d x d matrix


def embedding_sums(faces: Sequence[FaceFeatures], recogniser: NetworkChoice, shard: str) -> dict[str, str]:
    """The sums of the embeddings of a shard's faces and of their ground truth, for the commit record."""
    sides = zip(SIDES, ([face.embedding for face in faces], [face.embedding_gt for face in faces]), strict=True)
    source = FeatureSource(recogniser.name, recogniser.sha256)
    found = {side: [vector for vector in vectors if vector is not None] for side, vectors in sides}
    return {
        side: b64encode(FeatureStatistics.from_features(np.stack(vectors), source, shard).packed()).decode()
        for side, vectors in found.items()
        if vectors
    }


class EmbeddingSums:
    """The sums over a run. Add each shard once, in the order of the plan: float sums depend on the order."""

    def __init__(self) -> None:
        self._parts = defaultdict[str, list[FeatureStatistics]](list)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds one shard; a record without sums adds nothing."""
        for side, data in record.get("embedding_sums", {}).items():
            parts = self._parts[side]
            parts.append(FeatureStatistics.from_bytes(b64decode(data)))
            if len(parts) == _AT_ONCE:
                self._parts[side] = [FeatureStatistics.fold(parts)]

    def total(self, side: str) -> FeatureStatistics | None:
        return FeatureStatistics.fold(self._parts[side]) if self._parts[side] else None
