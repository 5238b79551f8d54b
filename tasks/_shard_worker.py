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
from itertools import islice
from typing import Any

import torch

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image, to_tensor, to_uint8
from bfr_models.registry import load_method
from bfr_models.types import FaceBatch
from tasks._commits import Record, commit_shard
from tasks._framing import FacesInPhotos, Framing, WholePictures
from tasks._halves import in_halves
from tasks._images import encode
from tasks._job import Job
from tasks._open_rows import Face, OpenRow, open_row, toned
from tasks._parquet import encode_table
from tasks._rows import Row, ShardInput, output_table, read_shard, rejected_table
from tasks._scores import score
from tasks._shards import Shard, require_unchanged
from tasks._statistics import BIN_WIDTHS, summarise
from tasks._storage import Store
from tasks._windows import Window, windows
from tasks.detectors import load_detector
from tasks.recognisers import load_recogniser

ROW_GROUP_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """What some rows cost."""

    rows: int
    restored: int
    seconds: float
    encoded_bytes: int


Done = tuple[Row, dict[str, Any] | None]
"""A row and its values for `data/`; None where it failed, and the row says why."""


class ShardWorker:
    """Made in a moment; `load` once, then `run` as often as there are shards."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._accelerator = threading.Lock()
        self._large_picture = threading.Lock()  # two at the same time might be too much for the memory

    def load(self) -> None:
        """Loads the networks. Apart from the constructor, so that its errors stay legible."""
        job = self._job
        if job.threads:
            torch.set_num_threads(job.threads)
        self._store = Store(job.destination)
        self._restorer = load_method(job.method, job.device)
        self._recogniser = load_recogniser()
        size = self._restorer.size
        self._framing: Framing = WholePictures(size)
        if job.photos:
            self._framing = FacesInPhotos(size, load_detector(job.photos.detector, job.device), job.photos)

    def run(self, shard: Shard) -> Record:
        """Restores, scores and commits one shard; returns the commit record that counts."""
        started = time.monotonic()
        require_unchanged(shard)
        source = self._read(shard)
        done = list(self._restored(source, (row for row in source.rows if row.error is None)))
        done += ((row, None) for row in source.rows if row.error is not None)
        return self._commit(shard, source, sorted(done, key=lambda pair: pair[0].index), started)

    def sample(self, shard: Shard, limit: int) -> Sample:
        """Restores and encodes the first rows of a shard, at most `limit`, and commits nothing."""
        source = self._read(shard)
        rows = source.rows[:limit]
        began = time.monotonic()
        done = self._restored(source, (row for row in rows if row.error is None))
        sizes = [len(values["restored"]["bytes"]) for _, values in done if values]
        return Sample(len(rows), len(sizes), time.monotonic() - began, sum(sizes))

    def _read(self, shard: Shard) -> ShardInput:
        return read_shard(shard, self._job.column, self._job.gt_column, self._job.seed)

    def _restored(self, source: ShardInput, rows: Iterator[Row]) -> Iterator[Done]:
        for window in windows(source, rows):
            with self._large_picture if window.is_large else nullcontext():
                yield from self._restored_window(source, window)

    def _restored_window(self, source: ShardInput, window: Window) -> Iterator[Done]:
        """The rows of a window, each as soon as its last face is done."""
        waiting = deque[OpenRow]()
        for row in window.rows:
            try:
                waiting.append(open_row(source, row, self._restorer.size))
            except RowError as error:
                yield row.failed(error), None
        self._framing.find(waiting)
        faces = _each_face(waiting.copy())
        while waiting:
            if batch := list(islice(faces, self._job.batch_size)):
                self._restore(batch)
            while waiting and waiting[0].is_done:
                yield self._finish(waiting.popleft())

    def _restore(self, batch: Sequence[tuple[OpenRow, Face]]) -> None:
        """Some faces, of any rows, through the method and the recogniser."""
        crops = [(face, self._framing.crop(row, face)) for row, face in batch]
        with self._accelerator:
            began = time.perf_counter()
            results = in_halves(self._call, crops, "method_failed")
            seconds = (time.perf_counter() - began) / len(batch)
        for (row, face), (_, crop), result in zip(batch, crops, results, strict=True):
            row.seconds += seconds
            if isinstance(result, RowError):
                face.take(result)
            else:
                restored = toned(result, row.picture)
                face.take(score(crop, restored, row.gt, self._recogniser, self._job.min_identity))

    def _call(self, crops: Sequence[tuple[Face, Uint8Image]]) -> list[Uint8Image | RowError]:
        """One call of the method."""
        lq = torch.stack([to_tensor(crop) for _, crop in crops])
        batch = FaceBatch(tuple(face.id for face, _ in crops), lq, tuple(face.seed for face, _ in crops))
        restored = self._restorer.restore(batch).images
        if restored.shape != (expected := (len(crops), 3, self._restorer.size, self._restorer.size)):
            raise ValueError(f"expected faces {expected}, the method gave {tuple(restored.shape)}")
        finite = torch.isfinite(restored).flatten(1).all(dim=1).tolist()
        not_finite = RowError("method_failed", "the method gave pixels that are not finite")
        return [face if ok else not_finite for face, ok in zip(to_uint8(restored.nan_to_num()), finite, strict=True)]

    def _finish(self, row: OpenRow) -> Done:
        """One row of `data/`, encoded."""
        if row.failure:
            return row.row.failed(row.failure), None
        job, image = self._job, self._framing.compose(row)
        try:
            encoded = encode(image, job.format, job.quality, row.picture)
        except RowError as error:
            return row.row.failed(error), None
        frames = row.picture.n_frames
        return row.row, {
            "id": row.row.id,
            "restored": {"bytes": encoded, "path": None},
            "width": image.shape[1],
            "height": image.shape[0],
            "faces": [face.to_json() for face in row.faces],
            "faces_found": len(row.faces),
            **{metric: row.lowest(metric) for metric in BIN_WIDTHS},
            "method": job.method.method,
            "fingerprint": job.method.fingerprint,
            "seed": row.row.seed,
            "seconds": row.seconds,
            "note": f"frame 1 of {frames}" if frames > 1 else None,
        }

    def _commit(self, shard: Shard, source: ShardInput, done: Sequence[Done], started: float) -> Record:
        restored = [(row, values) for row, values in done if values is not None]
        failed = [row for row, values in done if values is None]
        values = [values for _, values in restored]
        files = {}
        if values:
            table = output_table(source, [row for row, _ in restored], values, self._job.keep_input)
            files["data"] = encode_table(table, ROW_GROUP_ROWS)
        if failed:
            files["rejected"] = encode_table(rejected_table(shard, source, failed), ROW_GROUP_ROWS)
        outcomes = Counter(face["outcome"].partition(":")[0] for row in values for face in row["faces"])
        facts = {
            "fingerprint": self._job.method.fingerprint,
            "source": shard.source,
            "rows": len(source.rows),
            "restored": len(values),
            "rejected": len(failed),
            "rejects": dict(Counter(row.error.code for row in failed if row.error)),
            "faces": outcomes.total(),
            "outcomes": dict(outcomes),
            "statistics": summarise(values),
            "accelerator_seconds": round(sum(row["seconds"] for row in values), 3),
            "seconds": round(time.monotonic() - started, 3),
        }
        return commit_shard(self._store, shard.id, files, facts)


def _each_face(rows: deque[OpenRow]) -> Iterator[tuple[OpenRow, Face]]:
    """The faces that are to be restored, row by row; a row that is through is let go."""
    while rows:
        row = rows.popleft()
        yield from ((row, face) for face in row.todo)
