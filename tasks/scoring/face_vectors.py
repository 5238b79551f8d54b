"""`features/*.parquet`: the feature vectors of each scored face. Workers write it, verbs on finished runs read it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bfr_models.errors import BfrError
from bfr_models.metrics.frechet import FeatureSource
from tasks.runs.finished_run import FinishedRun, Rows, RunFile
from tasks.runs.outcomes import SCORED
from tasks.runs.sealed import run_parquet
from tasks.storage.store import PARALLEL_READS

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("face", pa.int32()),  # its index in the row's `faces`
        ("inception", pa.list_(pa.float32())),
        ("inception_gt", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
        ("embedding_gt", pa.list_(pa.float32())),
    ]
)
SOURCE_KEY = b"inception"  # metadata key that names the network behind the inception columns

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FaceFeatures:
    """Feature vectors of a face as it is written, and of its ground truth; None if not computed."""

    inception: Vector | None = None
    inception_gt: Vector | None = None
    embedding: Vector | None = None
    embedding_gt: Vector | None = None


def features_table(
    faces: Iterable[tuple[str, int, FaceFeatures]], inception: FeatureSource | None, keep_embeddings: bool
) -> pa.Table:
    """One row per face, from (id of the row, index of the face in it, its features)."""
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


class FaceVectors:
    """The feature vectors of a finished run."""

    def __init__(self, run: FinishedRun) -> None:
        self._run = run

    def has(self, column: str) -> bool:
        """Whether all features files have this column: those of earlier versions lack `embedding_gt`."""

        def names(path: str) -> list[str]:
            with run_parquet(self._run.store, path) as parquet:
                return list(parquet.schema_arrow.names)

        paths = [file.features for file in self._run.files if file.features]
        with ThreadPoolExecutor(PARALLEL_READS) as readers:
            return all(column in found for found in readers.map(names, paths))

    def read(self, file: RunFile, column: str) -> tuple[Rows, NDArray[np.float32], FeatureSource | None]:
        """One column of a features file: the row of each face that has a vector, the vectors (m, d), and the network
        that made them, if the file names it. BfrError if the file does not match the rows."""
        rows, empty = np.arange(file.start, file.stop), np.empty((0, 0), np.float32)
        if file.features is None:
            return rows[:0], empty, None
        with run_parquet(self._run.store, file.features) as parquet:
            table = parquet.read(columns=["id", column])
        owners = np.repeat(rows, self._scored_faces[file.start : file.stop])
        if [self._run.ids[row] for row in owners] != table["id"].to_pylist():
            raise BfrError(
                f"expected in {file.features} the scored faces of {file.data}, in the same order, found others; "
                "run `bfr verify` to see what is wrong with the run"
            )
        about = (table.schema.metadata or {}).get(SOURCE_KEY)
        cells = table[column].combine_chunks()
        there = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        if not there.any():
            return rows[:0], empty, None
        vectors = pc.list_flatten(cells).to_numpy(zero_copy_only=False).reshape(int(there.sum()), -1)
        return owners[there], vectors, FeatureSource(**json.loads(about)) if about else None

    @cached_property
    def _scored_faces(self) -> NDArray[np.int64]:
        """(n,) the number of faces of each row that are in `features/`."""
        faces = self._run.table["faces"].combine_chunks()
        outcomes = pc.struct_field(pc.list_flatten(faces), "outcome")
        words = pc.replace_substring_regex(outcomes, r"(?s):.*", "")
        scored = pc.is_in(words, value_set=pa.array(SCORED))
        parents = pc.list_parent_indices(faces).to_numpy()
        return np.bincount(parents[scored.to_numpy(zero_copy_only=False)], minlength=len(faces)).astype(np.int64)
