"""One worker: holds a method and restores shards with it, from the source's bytes to the commit.

A plain class: Ray makes an actor of it, tests and `--engine local` call it directly. Two calls of `run`
may be under way at once: one has the accelerator, the other reads, decodes, encodes or uploads.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import pyarrow as pa
import torch

from bfr_models.errors import RowError
from bfr_models.faces.detectors import load_detector
from bfr_models.pixels import Uint8Image, to_uint8
from bfr_models.registry import load_method
from bfr_models.types import FaceBatch
from tasks.datasets.row_ids import digest_of_ids
from tasks.datasets.writer import encode_table
from tasks.images.codec import encode
from tasks.runs.commits import Record, commit_shard
from tasks.runs.plan import require_planned
from tasks.runs.shards import Shard, require_unchanged
from tasks.runs.single_writer import run_store
from tasks.scoring.embedding_sums import embedding_sums
from tasks.scoring.face_vectors import features_table
from tasks.scoring.scorer import FaceFeatures, FaceTriple, load_scorer
from tasks.scoring.statistics import BIN_WIDTHS, summarise
from tasks.storage.redaction import redact
from tasks.storage.store import Store
from tasks.worker.batches import BatchSize, call_or_bisect, is_out_of_memory
from tasks.worker.framing import Crop, FacesInPhotos, Framing, HolesInPictures, WholePictures
from tasks.worker.job import Job, Order
from tasks.worker.open_rows import Face, OpenRow, match_greyscale, open_row
from tasks.worker.output import output_table, rejected_table
from tasks.worker.read_shard import Row, ShardInput, read_shard, unread_shard
from tasks.worker.windows import Window, windows

ROW_GROUP_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """What some rows cost."""

    rows: int
    restored: int
    seconds: float
    encoded_bytes: int


class StoppedError(Exception):
    """The worker was told to stop; the shard at hand is not committed."""


@dataclass(frozen=True)
class Done:
    """A row that is through."""

    row: Row
    values: dict[str, Any] | None = None  # for `data/`; None where it failed, and the row says why
    features: Sequence[FaceFeatures] = ()  # of its faces, in their order


class ShardWorker:
    """Made in a moment; `load` once, then `run` as often as there are shards."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.stop = threading.Event()  # calls of `run` raise StoppedError soon after it is set
        self.batches = 0  # that the method has done: a sign of life
        self._batch_size = BatchSize(job.batch_size, job.device)
        self._accelerator = threading.Lock()
        self._large_picture = threading.Lock()  # two at the same time might be too much for the memory

    def load(self) -> None:
        """Loads the networks. Apart from the constructor, so that its errors stay legible."""
        job = self._job
        if job.threads:
            torch.set_num_threads(job.threads)
        self._restorer = load_method(job.method, job.device)
        self._scorer = load_scorer(job.recogniser, job.measures, job.device, job.min_identity)
        size = self._restorer.size
        self._framing: Framing = HolesInPictures(size) if job.columns.mask else WholePictures(size)
        if job.photos:
            self._framing = FacesInPhotos(size, load_detector(job.photos.detector, job.device), job.photos)

    @cached_property
    def _store(self) -> Store:
        """Opened by the first commit: who only takes a sample writes nothing."""
        return run_store(self._job.destination)

    def run(self, order: Order) -> Record | None:
        """Restores, scores and commits one shard; returns the commit record that counts. None after a trial, which
        restores and encodes some rows and commits nothing."""
        shard, started = order.shard, time.monotonic()
        require_unchanged(shard)
        source = unread_shard(shard, self._job.columns, order.unreadable) if order.unreadable else self._read(shard)
        source = source.without({index: RowError("worker_killed", why) for index, why in order.poison.items()})
        todo = source.rows if order.trial is None else source.rows[order.trial.start : order.trial.stop]
        done = list(self._restored(source, (row for row in todo if row.error is None)))
        if order.trial is not None:
            return None
        done += (Done(row) for row in source.rows if row.error is not None)
        return self._commit(shard, source, sorted(done, key=lambda one: one.row.index), started)

    def sample(self, shard: Shard, limit: int) -> Sample:
        """Restores and encodes the first rows of a shard, at most `limit`, and commits nothing."""
        source = self._read(shard)
        rows = source.rows[:limit]
        began = time.monotonic()
        done = self._restored(source, (row for row in rows if row.error is None))
        sizes = [len(one.values["restored"]["bytes"]) for one in done if one.values]
        return Sample(len(rows), len(sizes), time.monotonic() - began, sum(sizes))

    def _read(self, shard: Shard) -> ShardInput:
        return read_shard(shard, self._job.columns, self._job.seed)

    def _restored(self, source: ShardInput, rows: Iterator[Row]) -> Iterator[Done]:
        for window in windows(source, rows):
            if window.is_large:
                pa.default_memory_pool().release_unused()  # what reading the shard took beside the shard
            with self._large_picture if window.is_large else nullcontext():
                yield from self._restored_window(source, window)

    def _restored_window(self, source: ShardInput, window: Window) -> Iterator[Done]:
        """The rows of a window, each as soon as its last face is done."""
        waiting = deque[OpenRow]()
        for row in window.rows:
            try:
                waiting.append(open_row(source, row, self._restorer.size))
            except RowError as error:
                yield Done(row.failed(error))
        self._framing.find(waiting)
        faces = _each_face(waiting.copy())
        while waiting:
            if batch := list(islice(faces, self._batch_size.now)):
                self._restore(batch)
            while waiting and waiting[0].is_done:
                yield self._finish(waiting.popleft())

    def _restore(self, batch: Sequence[tuple[OpenRow, Face]]) -> None:
        """Some faces, of any rows, through the method and the recogniser."""
        self._require_going()
        crops = [(face, self._framing.crop(row, face)) for row, face in batch]
        with self._accelerator:
            began = time.perf_counter()
            results = call_or_bisect(self._call, crops, "method_failed")
            self.batches += 1
            seconds = (time.perf_counter() - began) / len(batch)
            self._batch_size.note(len(batch), seconds * len(batch))
        done: list[Face] = []
        unscored: list[FaceTriple] = []
        for (row, face), (_, crop), result in zip(batch, crops, results, strict=True):
            row.seconds += seconds
            if isinstance(result, RowError):
                face.take(result)
            else:
                done.append(face)
                unscored.append(FaceTriple(crop.pixels, match_greyscale(result, row.picture), row.gt))
        for face, scored in zip(done, self._scorer.score(unscored), strict=True):
            face.take(scored)

    def _call(self, crops: Sequence[tuple[Face, Crop]]) -> list[Uint8Image | RowError]:
        """One call of the method."""
        masks = [crop.mask for _, crop in crops if crop.mask is not None]
        batch = FaceBatch(
            ids=tuple(face.id for face, _ in crops),
            images=torch.stack([crop.lq for _, crop in crops]),
            seeds=tuple(face.seed for face, _ in crops),
            masks=torch.stack(masks) if masks else None,
        )
        try:
            restored = self._restorer.restore(batch).images
        except Exception as error:
            if is_out_of_memory(error):
                self._batch_size.too_large(len(batch))
            raise
        if restored.shape != (expected := (len(crops), 3, self._restorer.size, self._restorer.size)):
            raise ValueError(f"expected faces {expected}, the method gave {tuple(restored.shape)}")
        finite = torch.isfinite(restored).flatten(1).all(dim=1).tolist()
        not_finite = RowError("method_failed", "the method gave pixels that are not finite")
        return [face if ok else not_finite for face, ok in zip(to_uint8(restored.nan_to_num()), finite, strict=True)]

    def _finish(self, row: OpenRow) -> Done:
        """One row of `data/`, encoded."""
        if row.failure:
            return Done(row.row.failed(row.failure))
        job, image = self._job, self._framing.compose(row)
        try:
            encoded = encode(image, job.format, job.quality, row.picture)
        except RowError as error:
            return Done(row.row.failed(error))
        frames = row.picture.n_frames
        values = {
            "id": row.row.id,
            "restored": {"bytes": encoded, "path": None},
            "width": image.shape[1],
            "height": image.shape[0],
            "faces": [face.to_json() for face in row.faces],
            "faces_found": len(row.faces),
            **{metric: row.worst(metric) for metric in BIN_WIDTHS},
            "method": job.method.method,
            "fingerprint": job.method.fingerprint,
            "seed": row.row.seed,
            "seconds": row.seconds,
            "note": f"frame 1 of {frames}" if frames > 1 else None,
        }
        return Done(row.row, values, [scored.features for scored in row.scored])

    def _commit(self, shard: Shard, source: ShardInput, done: Sequence[Done], started: float) -> Record:
        restored = [(one.row, one.values) for one in done if one.values is not None]
        failed = [one.row for one in done if one.values is None]
        values = [values for _, values in restored]
        files = {}
        if values:
            table = output_table(source, [row for row, _ in restored], values, self._job.keep_input)
            for one in values:
                del one["restored"]  # it is in the table: of a very large picture twice is too much
            files["data"] = encode_table(table, ROW_GROUP_ROWS)
        keep = self._job.measures.keep_embeddings
        if self._scorer.inception or keep:
            faces = [(one.row.id, place, seen) for one in done for place, seen in enumerate(one.features)]
            about = self._scorer.inception.source if self._scorer.inception else None
            files["features"] = encode_table(features_table(faces, about, keep), ROW_GROUP_ROWS)
        if failed:
            files["rejected"] = encode_table(rejected_table(shard, source, failed), ROW_GROUP_ROWS)
        outcomes = Counter(face["outcome"].partition(":")[0] for row in values for face in row["faces"])
        facts = {
            "fingerprint": self._job.method.fingerprint,
            "source": redact(shard.source),
            "rows": len(source.rows),
            "ids": digest_of_ids(row.id for row in source.rows),
            "restored": len(values),
            "rejected": len(failed),
            "rejects": dict(Counter(row.error.code for row in failed if row.error)),
            "faces": outcomes.total(),
            "outcomes": dict(outcomes),
            "statistics": summarise(values),
            "embedding_sums": self._sums(shard, done),
            "accelerator_seconds": round(sum(row["seconds"] for row in values), 3),
            "seconds": round(time.monotonic() - started, 3),
        }
        self._require_going()
        still_planned = partial(require_planned, self._store, shard)
        return commit_shard(self._store, shard.id, files, facts, shard.generation, still_planned)

    def _sums(self, shard: Shard, done: Sequence[Done]) -> dict[str, str]:
        recogniser = self._job.recogniser
        if recogniser is None or not self._job.measures.distances:
            return {}
        return embedding_sums([seen for one in done for seen in one.features], recogniser, shard.id)

    def _require_going(self) -> None:
        if self.stop.is_set():
            raise StoppedError("the worker was told to stop")


def _each_face(rows: deque[OpenRow]) -> Iterator[tuple[OpenRow, Face]]:
    """The faces that are to be restored, row by row; a row that is through is let go."""
    while rows:
        row = rows.popleft()
        yield from ((row, face) for face in row.todo)
