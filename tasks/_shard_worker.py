"""One worker: holds a method and restores shards with it, from the source's bytes to the commit.

A plain class: Ray makes an actor of it, tests and `--engine local` call it directly. Two calls of `run`
may be under way at once: one has the accelerator, the other reads, decodes, encodes or uploads.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image, to_tensor, to_uint8
from bfr_models.registry import load_method
from bfr_models.types import FaceBatch
from tasks._commits import Record, commit_shard
from tasks._images import encode
from tasks._job import Job
from tasks._parquet import encode_table
from tasks._rows import Row, ShardInput, output_table, read_shard, rejected_table
from tasks._scores import score
from tasks._shards import Shard, require_unchanged
from tasks._statistics import summarise
from tasks._storage import Store
from tasks.recognisers import load_recogniser

ROW_GROUP_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """What some rows cost."""

    rows: int
    restored: int
    seconds: float
    encoded_bytes: int


@dataclass(frozen=True)
class _Attempt:
    """One row behind the method; `face` is empty where the row failed."""

    row: Row
    face: Uint8Image
    seconds: float  # of the accelerator


class ShardWorker:
    """Made in a moment; `load` once, then `run` as often as there are shards."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._accelerator = threading.Lock()

    def load(self) -> None:
        """Loads the method and the recogniser. Apart from the constructor, so that its errors stay legible."""
        if self._job.threads:
            torch.set_num_threads(self._job.threads)
        self._store = Store(self._job.destination)
        self._restorer = load_method(self._job.method, self._job.device)
        self._recogniser = load_recogniser()

    def run(self, shard: Shard) -> Record:
        """Restores, scores and commits one shard; returns the commit record that counts."""
        started = time.monotonic()
        require_unchanged(shard)
        job = self._job
        source = read_shard(shard, job.column, job.gt_column, job.seed, self._restorer.size)
        attempts = self._restore([row for row in source.rows if row.error is None])
        faces = [attempt for attempt in attempts if attempt.row.error is None]
        failed = [row for row in (*source.rows, *(a.row for a in attempts)) if row.error is not None]
        return self._commit(shard, source, faces, sorted(failed, key=lambda row: row.index), started)

    def sample(self, shard: Shard, limit: int) -> Sample:
        """Restores and encodes the first rows of a shard, at most `limit`, and commits nothing."""
        job = self._job
        rows = read_shard(shard, job.column, job.gt_column, job.seed, self._restorer.size).rows[:limit]
        began = time.monotonic()
        faces = [a for a in self._restore([row for row in rows if row.error is None]) if a.row.error is None]
        sizes = [len(self._output(face)["restored"]["bytes"]) for face in faces]
        return Sample(len(rows), len(faces), time.monotonic() - began, sum(sizes))

    def _restore(self, rows: Sequence[Row]) -> list[_Attempt]:
        """One attempt per row; the rows that failed now say so."""
        attempts = []
        for start in range(0, len(rows), self._job.batch_size):
            batch = rows[start : start + self._job.batch_size]
            with self._accelerator:
                began = time.perf_counter()
                results = self._restore_batch(batch)
                seconds = (time.perf_counter() - began) / len(batch)
            attempts += [_attempt(row, result, seconds) for row, result in zip(batch, results, strict=True)]
        return attempts

    def _restore_batch(self, rows: Sequence[Row]) -> list[Uint8Image | RowError]:
        """A batch in one call; if that fails, in halves, down to the row that is to blame."""
        faces = [row.face for row in rows if row.face is not None]
        lq = torch.stack([to_tensor(face) for face in faces])
        try:
            batch = FaceBatch(tuple(row.id for row in rows), lq, tuple(row.seed for row in rows))
            restored = self._restorer.restore(batch).images
            if restored.shape != (expected := (len(rows), 3, self._restorer.size, self._restorer.size)):
                raise ValueError(f"expected faces {expected}, the method gave {tuple(restored.shape)}")
        except Exception as error:  # whatever a method may raise, out of memory included
            if len(rows) == 1:
                return [RowError("method_failed", f"{type(error).__name__}: {error}"[:500])]
            half = len(rows) // 2
            return self._restore_batch(rows[:half]) + self._restore_batch(rows[half:])
        finite = torch.isfinite(restored).flatten(1).all(dim=1).tolist()
        not_finite = RowError("method_failed", "the method gave pixels that are not finite")
        return [face if ok else not_finite for face, ok in zip(to_uint8(restored.nan_to_num()), finite, strict=True)]

    def _commit(
        self,
        shard: Shard,
        source: ShardInput,
        faces: Sequence[_Attempt],
        failed: Sequence[Row],
        started: float,
    ) -> Record:
        values = [self._output(face) for face in faces]
        files = {}
        if values:
            table = output_table(source, [face.row for face in faces], values, self._job.keep_input)
            files["data"] = encode_table(table, ROW_GROUP_ROWS)
        if failed:
            files["rejected"] = encode_table(rejected_table(shard, failed), ROW_GROUP_ROWS)
        facts = {
            "fingerprint": self._job.method.fingerprint,
            "source": shard.source,
            "rows": len(source.rows),
            "restored": len(values),
            "rejected": len(failed),
            "rejects": dict(Counter(row.error.code for row in failed if row.error)),
            "faces": len(values),
            "statistics": summarise(values),
            "accelerator_seconds": round(sum(face.seconds for face in faces), 3),
            "seconds": round(time.monotonic() - started, 3),
        }
        return commit_shard(self._store, shard.id, files, facts)

    def _output(self, attempt: _Attempt) -> dict[str, Any]:
        """One row of `data/`: scored, encoded. The whole picture is the face."""
        job, row = self._job, attempt.row
        assert row.picture is not None, "only decoded rows are restored"
        scored = score(row, attempt.face, self._recogniser, job.min_identity)
        height, width = scored.face.shape[:2]
        face = {
            "box": [0.0, 0.0, float(row.width), float(row.height)],
            "outcome": scored.outcome,
            "identity_similarity": scored.identity_similarity,
            "sharpness": scored.sharpness,
        }
        frames = row.picture.n_frames
        return {
            "id": row.id,
            "restored": {"bytes": encode(scored.face, job.format, job.quality, row.picture), "path": None},
            "width": width,
            "height": height,
            "faces": [face],
            "faces_found": 1,
            "identity_similarity": scored.identity_similarity,
            "identity_similarity_gt": scored.identity_similarity_gt,
            "psnr": scored.psnr,
            "ssim": scored.ssim,
            "method": job.method.method,
            "fingerprint": job.method.fingerprint,
            "seed": row.seed,
            "seconds": attempt.seconds,
            "note": f"frame 1 of {frames}" if frames > 1 else None,
        }


def _attempt(row: Row, result: Uint8Image | RowError, seconds: float) -> _Attempt:
    if isinstance(result, RowError):
        return _Attempt(row.failed(result), np.empty(0, np.uint8), seconds)
    return _Attempt(row, _as_input(result, row), seconds)


def _as_input(face: Uint8Image, row: Row) -> Uint8Image:
    """A grey input gives a grey face: scores see what is written."""
    if row.picture is None or not row.picture.grey:
        return face
    luma = np.rint(face @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)
