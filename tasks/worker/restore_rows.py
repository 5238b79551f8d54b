"""Restores rows: decodes them window by window, runs their faces through the method in batches, and composes and
encodes each row as soon as its last face is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import torch

from bfr_models.errors import RowError
from bfr_models.faces.candidates import corrected
from bfr_models.faces.detectors import load_detector
from bfr_models.metrics.fidelity import sharpness
from bfr_models.metrics.frechet import FeatureSource
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from bfr_models.registry import load_method
from bfr_models.types import FaceBatch
from bfr_models.upscalers.lanczos import enlarge
from bfr_models.upscalers.realesrgan import RealESRGAN
from tasks.images.codec import encode, notes_on
from tasks.runs.timings import OTHER
from tasks.scoring.scorer import FaceTriple, load_scorer
from tasks.scoring.statistics import BIN_WIDTHS
from tasks.worker.batches import BatchSize, call_or_bisect, is_out_of_memory
from tasks.worker.decide import Case, Decision, load_decide
from tasks.worker.framing import Crop, FacesInPhotos, Framing, HolesInImages, WholeImages
from tasks.worker.job import Job
from tasks.worker.open_rows import Face, OpenRow, match_greyscale, open_row
from tasks.worker.output import Done
from tasks.worker.read_shard import Row, ShardInput
from tasks.worker.stages import each_in, exclusive, stage
from tasks.worker.upscaling import window_scale
from tasks.worker.windows import Window, windows


class StoppedError(Exception):
    """The worker was told to stop; the shard in progress is not committed."""


@dataclass(frozen=True, eq=False)
class _Restored:
    """A face that the method has restored, before it is decided what becomes of it."""

    row: OpenRow
    face: Face
    lq: Uint8Image  # at the method's size
    case: Case
    drawn: Uint8Image  # the network's face as it would be put into the image


class RestoreRows:
    """Holds the networks of a job. Two threads may call `restore` at once: while one uses the accelerator, the other
    decodes or encodes."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        """Loads the networks. Once `stop` is set, `restore` raises StoppedError before its next batch."""
        self._job, self._stop = job, stop
        self._restorer = load_method(job.method, job.device)
        self._scorer = load_scorer(job.recogniser, job.measures, job.device, job.min_identity)
        self._decide = load_decide(job.care)
        self._framing = self._load_framing()
        self._batch_size = BatchSize(job.batch_size, job.device)
        self._accelerator = threading.Lock()
        self._large_image = threading.Lock()  # two large images decoded at once might not fit into memory
        self.batches = 0  # of faces, and tiles of photos, so far: a sign of life

    def _load_framing(self) -> Framing:
        job, size = self._job, self._restorer.size
        if job.photos is None:
            return HolesInImages(size) if job.columns.mask else WholeImages(size, job.care.size)
        detector = load_detector(job.photos.detector, job.device)
        if job.photos.background is None:
            return FacesInPhotos(size, detector, job.photos, job.format, enlarge)
        background = RealESRGAN(job.photos.background, job.device, self._on_tile)
        return FacesInPhotos(size, detector, job.photos, job.format, background.enlarge)

    def _on_tile(self) -> None:
        self._heed_stop()
        self.batches += 1

    def _heed_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the worker was told to stop")

    @property
    def features_source(self) -> FeatureSource | None:
        """The network whose features of each face are kept; None if none are."""
        return self._scorer.inception.source if self._scorer.inception else None

    def restore(self, source: ShardInput, rows: Sequence[Row]) -> Iterator[Done]:
        """The results of some rows of a shard, in no particular order. Rows that have an error are passed through."""
        yield from (Done(row) for row in rows if row.error is not None)
        good = (row for row in rows if row.error is None)
        for window in each_in("read", windows(source, good, window_scale(self._job.photos))):
            if window.is_large:
                pa.default_memory_pool().release_unused()  # what reading the shard took temporarily
            with exclusive(self._large_image, OTHER) if window.is_large else nullcontext():
                yield from self._restore_window(source, window)

    def _restore_window(self, source: ShardInput, window: Window) -> Iterator[Done]:
        waiting = deque[OpenRow]()
        for row in window.rows:
            try:
                with stage("decode"):
                    opened = open_row(source, row, self._restorer.size)
                waiting.append(opened)
            except RowError as error:
                yield Done(row.failed(error))
        with stage("detect"):
            self._framing.find(waiting)
        faces = _each_face(waiting.copy())
        while waiting:
            # A batch takes faces from several rows: most rows have one face, and would leave it almost empty.
            if batch := list(islice(faces, self._batch_size.now)):
                self._restore_batch(batch)
            while waiting and waiting[0].is_done:
                yield self._finish(waiting.popleft())

    def _restore_batch(self, batch: Sequence[tuple[OpenRow, Face]]) -> None:
        """Runs some faces, of any rows, through the method and the networks that score them."""
        self._heed_stop()
        with stage("align"):
            crops = [(face, self._framing.crop(row, face)) for row, face in batch]
        with exclusive(self._accelerator, "method"):
            began = time.perf_counter()
            results = call_or_bisect(self._call_method, crops, "method_failed")
            self.batches += 1
            seconds = (time.perf_counter() - began) / len(batch)
            self._batch_size.note(len(batch), seconds * len(batch))
        done: list[_Restored] = []
        for (row, face), (_, crop), result in zip(batch, crops, results, strict=True):
            row.seconds += seconds
            if isinstance(result, RowError):
                face.fail(result)
            else:
                done.append(self._restored(row, face, crop.pixels, match_greyscale(result, row.image)))
        self._decide_and_score(done)

    def _restored(self, row: OpenRow, face: Face, lq: Uint8Image, restored: Uint8Image) -> _Restored:
        with stage("align"):
            native = self._framing.native(row, face) if self._decide.needs_crops else lq
        case = Case(native, restored, face.side or len(native), face.seed, row.enlargement.factor)
        with stage("score"):
            face.sharpness_input = sharpness(lq)
        with stage("judge"):
            return _Restored(row, face, lq, case, self._decide.draw(case))

    def _decide_and_score(self, done: Sequence[_Restored]) -> None:
        """Chooses what becomes of each face, and scores that at the method's size."""
        with stage("judge"):
            began = time.perf_counter()
            drawn = [(one.case, one.drawn) for one in done]
            decisions = call_or_bisect(self._decide.choose, drawn, "judge_failed") if drawn else []
            seconds = (time.perf_counter() - began) / max(len(done), 1)
        decided: list[tuple[Face, Decision]] = []
        unscored: list[FaceTriple] = []
        for one, decision in zip(done, decisions, strict=True):
            one.row.seconds += seconds
            if isinstance(decision, RowError):
                one.face.fail(decision)
                continue
            decided.append((one.face, decision))
            unscored.append(FaceTriple(one.lq, _written(decision, one.lq), one.row.gt))
        with stage("score"):
            scores = self._scorer.score(unscored)
        for (face, decision), scored in zip(decided, scores, strict=True):
            face.take(decision, scored)

    def _call_method(self, crops: Sequence[tuple[Face, Crop]]) -> list[Uint8Image | RowError]:
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
        # Methods come from other packages, too: check the result before it is scored and written.
        if restored.shape != (expected := (len(crops), 3, self._restorer.size, self._restorer.size)):
            raise ValueError(f"expected faces {expected}, the method gave {tuple(restored.shape)}")
        finite = torch.isfinite(restored).flatten(1).all(dim=1).tolist()
        not_finite = RowError("method_failed", "the method gave pixels that are not finite")
        return [face if ok else not_finite for face, ok in zip(to_uint8(restored.nan_to_num()), finite, strict=True)]

    def _finish(self, row: OpenRow) -> Done:
        """The row of `data/`, or of `rejected/` if its faces failed or the image cannot be encoded."""
        if row.failure:
            return Done(row.row.failed(row.failure))
        job, began = self._job, time.perf_counter()
        with stage("paste"):
            composed = self._framing.compose(row)
        if job.photos and job.photos.background:
            row.seconds += time.perf_counter() - began
        try:
            with stage("encode"):
                encoded = encode(composed, job.format, job.quality, row.image, row.enlargement.factor)
        except RowError as error:
            return Done(row.row.failed(error))
        written = notes_on(row.image, job.format, composed, row.enlargement.factor)
        values = {
            "id": row.row.id,
            "restored": {"bytes": encoded, "path": None},
            "width": composed.shape[1],
            "height": composed.shape[0],
            "faces": [face.to_json() for face in row.faces],
            "faces_found": len(row.faces),
            **{metric: row.worst(metric) for metric in BIN_WIDTHS},
            "method": job.method.name,
            "fingerprint": job.method.fingerprint,
            "seed": row.row.seed,
            "seconds": row.seconds,
            "note": "; ".join(filter(None, (written, row.enlargement.note))) or None,
        }
        return Done(row.row, values, [scored.features for scored in row.scored])


def _written(decision: Decision, lq: Uint8Image) -> Uint8Image:
    """What becomes of a face, at the size of `lq`."""
    if decision.pixels is None:
        return lq
    side = len(lq)
    drawn = decision.pixels if len(decision.pixels) == side else to_uint8(face_tensor(decision.pixels, side))
    return drawn if decision.weight == 1 else corrected(drawn, lq)


def _each_face(rows: deque[OpenRow]) -> Iterator[tuple[OpenRow, Face]]:
    """The faces to restore, row by row. Consumes `rows`, so that finished rows can be freed."""
    while rows:
        row = rows.popleft()
        yield from ((row, face) for face in row.todo)
