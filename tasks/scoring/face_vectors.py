"""`features/*.parquet`: what networks saw in each face."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from bfr_models.metrics.frechet import FeatureSource

if TYPE_CHECKING:
    from tasks.scoring.scorer import FaceFeatures


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("face", pa.int32()),  # its place in the row's `faces`
        ("inception", pa.list_(pa.float32())),
        ("inception_gt", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
        ("embedding_gt", pa.list_(pa.float32())),
    ]
)


SOURCE_KEY = b"inception"  # of a features file's metadata: what made them


def features_table(
    faces: Iterable[tuple[str, int, FaceFeatures]], inception: FeatureSource | None, keep_embeddings: bool
) -> pa.Table:
    """One row per face: (id, its place, what was seen)."""
    rows = [
        {
            "id": row_id,
            "face": place,
            "inception": seen.inception,
            "inception_gt": seen.inception_gt,
            "embedding": seen.embedding if keep_embeddings else None,
            "embedding_gt": seen.embedding_gt if keep_embeddings else None,
        }
        for row_id, place, seen in faces
    ]
    about = {SOURCE_KEY: json.dumps(vars(inception))} if inception else {}
    return pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(about))
