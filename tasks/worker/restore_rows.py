"""Restores rows: the stages that each passes through, and what is done with it in each.

    codecs        decode, detect, align     a row at a time
    accelerator   method                    faces of any rows, in batches
    codecs        judge                     a row at a time
    networks      score                     faces of any rows, in batches; by the codecs where no network scores
    codecs        paste, encode             a row at a time

A detector that is a network of its own has the accelerator's lane, too. Rows of all shards in hand are in the line at
once; `RestoreRows.restore` puts in those of one shard, and waits for them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from functools import partial

import cv2
import pyarrow as pa

from bfr_models.errors import RowError
from bfr_models.faces.detectors import load_detector
from bfr_models.metrics.fidelity import sharpness
from bfr_models.metrics.frechet import FeatureSource
from bfr_models.upscalers.lanczos import enlarge
from bfr_models.upscalers.realesrgan import RealESRGAN
from tasks.images.codec import encode, notes_on
from tasks.scoring.scorer import FaceTriple, load_scorer
from tasks.scoring.statistics import BIN_WIDTHS
from tasks.worker import windows
from tasks.worker.accelerator import Accelerator, is_finite, use_threads
from tasks.worker.batches import call_or_bisect
from tasks.worker.decide import Case, load_decide
from tasks.worker.framing import FacesInPhotos, Framing, HolesInImages, WholeImages
from tasks.worker.in_flight import FaceInFlight, Results, RowInFlight, StoppedError, all_faces
from tasks.worker.job import Job
from tasks.worker.open_rows import as_pixels, open_row
from tasks.worker.output import Done
from tasks.worker.pipeline import Batch, Lane, Line, Stage, turn
from tasks.worker.read_shard import Row, ShardInput
from tasks.worker.stages import Clocks, stage
from tasks.worker.upscaling import window_scale

MOST_CODECS = 16  # threads
PHOTOS_AT_ONCE = 4  # through a detector that is a network
PIXEL_BYTES = 6  # of an image, and of what is written in its place
FACE_BYTES = 30  # a pixel of a face at the method's size: floats before and after, and three pictures
FACES_GUESSED = 4  # in a photo that has not been looked at
BYTES_PER_THREAD = PIXEL_BYTES * windows.WINDOW_PIXELS
SMALL_BATCH_BYTES = BYTES_PER_THREAD // 4  # that any batch may take
STAGES_WITH_BATCHES = 3  # at most: that of a network that finds faces, the method's, that of networks that score


class RestoreRows:
    """Holds the networks of a job, and the line. Several threads may call `restore` at once."""

    def __init__(self, job: Job, stop: threading.Event, clocks: Clocks, threads: int) -> None:
        """Loads the networks. `threads` is the number of threads that the method computes with on a CPU. Once `stop` is
        set, `restore` raises StoppedError instead of another batch."""
        self._job, self._stop = job, stop
        self._accelerator = Accelerator(job, self._heed_stop, threads)
        self._size = self._accelerator.side
        self._scorer = load_scorer(job.recogniser, job.measures, job.device, job.min_identity)
        self._decide = load_decide(job.care)
        self._framing = self._load_framing()
        self._redraws = job.photos is not None and job.photos.background is not None
        self._turn = threading.Lock()  # of the shard whose rows are put in
        self._tiles = 0  # of photos that are enlarged
        self._threads = min(MOST_CODECS, job.threads or os.cpu_count() or 1)
        self._line = Line[RowInFlight](self._stages(), self._bytes_in_flight, self._end, clocks)

    def _stages(self) -> list[Stage[RowInFlight]]:
        one_thread = partial(use_threads, 1)
        cv2.setNumThreads(1)
        codecs = Lane("codecs", self._threads, one_thread)
        accelerator = Lane("accelerator", 2, one_thread)
        networks = Lane("networks", 1, one_thread)
        # One of the accelerator's threads puts the next batch together while the other waits for the last.
        size = self._bytes_in_a_batch
        faces = Batch[RowInFlight](lambda: self._accelerator.batch_size, lambda row: len(row.faces), size)
        photos = Batch[RowInFlight](lambda: PHOTOS_AT_ONCE, lambda row: 1, size)
        detecting, looking = (accelerator, photos) if self._framing.is_network else (codecs, None)
        scoring, seen = (networks, faces) if self._scorer.has_networks else (codecs, None)
        return [
            Stage("decode", self._decode, codecs),
            Stage("detect", self._detect, detecting, looking),
            Stage("align", self._align, codecs),
            Stage("method", self._restore, accelerator, faces),
            Stage("judge", self._judge, codecs),
            Stage("score", self._score, scoring, seen),
            Stage("paste", self._paste, codecs),
            Stage("encode", self._encode, codecs),
        ]

    def _bytes_in_a_batch(self) -> int:  # of rows that are a face of the method's size each
        face = (PIXEL_BYTES + FACE_BYTES) * self._size**2
        return max(SMALL_BATCH_BYTES, self._accelerator.batch_size * face)

    def _bytes_in_flight(self) -> int:
        """Two large images, more with more threads; at least nearly full batches in all stages, and one more row."""
        row = BYTES_PER_THREAD + FACES_GUESSED * FACE_BYTES * self._size**2
        return max(max(2, self._threads // 2) * BYTES_PER_THREAD, STAGES_WITH_BATCHES * self._bytes_in_a_batch() + row)

    def _load_framing(self) -> Framing:
        job, size = self._job, self._size
        if job.photos is None:
            return HolesInImages(size) if job.columns.mask else WholeImages(size, job.care.size)
        detector = self._accelerator.compute(partial(load_detector, job.photos.detector, job.device))
        if job.photos.background is None:
            return FacesInPhotos(size, detector, job.photos, job.format, enlarge)
        background = RealESRGAN(job.photos.background, job.device, self._on_tile)
        return FacesInPhotos(size, detector, job.photos, job.format, background.enlarge)

    def _on_tile(self) -> None:
        self._heed_stop()
        self._tiles += 1

    @property
    def batches(self) -> int:
        """Of faces, and tiles of photos, so far: a sign of life."""
        return self._accelerator.batches + self._tiles

    def _heed_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the worker was told to stop")

    @property
    def features_source(self) -> FeatureSource | None:
        """The network whose features of each face are kept; None if none are."""
        return self._scorer.inception.source if self._scorer.inception else None

    def close(self) -> None:
        """Ends the line's threads, once all rows are out of it, and the accelerator's."""
        self._line.close()
        self._accelerator.close()

    def restore(self, source: ShardInput, rows: Sequence[Row]) -> list[Done]:
        """The results of some rows of a shard, in no particular order. Rows that have an error are passed through."""
        results = Results(self._stop)
        held: RowInFlight | None = None  # until it is known whether a batch goes on after it
        with turn(self._turn), stage("read"):
            for row in rows:
                results.expect()
                if row.error is not None:
                    results.end(Done(row))
                elif results.is_over:
                    results.end(None)
                elif one := self._in_flight(source, row, results):
                    self._admit(held, is_last=one.is_large)
                    held = one
            self._admit(held, is_last=True)
        if results.is_over:
            self._line.wake()  # for those that waited for others
        return results.wait()

    def _in_flight(self, source: ShardInput, row: Row, results: Results) -> RowInFlight | None:
        """A row that may be admitted; None, with its shard failed, if its image cannot be looked at."""
        scale = window_scale(self._job.photos)
        try:
            pixels = scale**2 * windows.pixels_of(source, row)
        except BaseException as error:  # of the storage that the image is in
            results.fail(error)
            results.end(None)
            return None
        faces = FACES_GUESSED if self._job.photos else 1
        size = PIXEL_BYTES * pixels + faces * FACE_BYTES * self._size**2
        return RowInFlight(source, row, results, size, is_large=pixels > windows.WINDOW_PIXELS)

    def _admit(self, row: RowInFlight | None, *, is_last: bool) -> None:
        if row is None:
            return
        row.is_last = is_last
        if row.is_large:
            pa.default_memory_pool().release_unused()  # what reading the shard took temporarily
        with stage(None):
            self._line.admit(row)

    def _end(self, row: RowInFlight) -> None:
        row.results.end(row.done)

    # The stages.

    def _decode(self, rows: Sequence[RowInFlight]) -> None:
        for row in rows:
            try:
                row.opened = open_row(row.source, row.row, self._size)
            except RowError as error:
                row.reject(error)

    def _detect(self, rows: Sequence[RowInFlight]) -> None:
        find = partial(self._framing.find, [row.image for row in rows])
        if self._framing.is_network:
            self._accelerator.detect(find)
        else:
            find()
        for row in rows:
            if row.image.error:
                row.reject(row.image.error)

    def _align(self, rows: Sequence[RowInFlight]) -> None:
        for row in rows:
            row.faces = [FaceInFlight(face) for face in row.image.todo]
            for one in row.faces[: self._accelerator.batch_size]:  # a crowd's others are cut out in their turn
                one.crop = self._framing.crop(row.image, one.face)

    def _restore(self, rows: Sequence[RowInFlight]) -> None:
        faces, size = all_faces(rows), self._accelerator.batch_size
        for start in range(0, len(faces), size):
            batch = faces[start : start + size]
            self._restore_batch(batch)
            if len(faces) > size:  # a crowd: what it has become takes less memory than what the method gives
                for row, one in batch:
                    self._judge_faces(row, [one])

    def _restore_batch(self, faces: Sequence[tuple[RowInFlight, FaceInFlight]]) -> None:
        with stage("align"):
            for row, one in faces:
                one.crop = one.crop or self._framing.crop(row.image, one.face)
        restored, seconds = self._accelerator.restore([one for _, one in faces])
        for (row, one), found in zip(faces, restored, strict=True):
            row.image.seconds += seconds / len(faces)
            if isinstance(found, RowError):
                one.face.fail(found)
            else:
                one.restored = found

    def _judge(self, rows: Sequence[RowInFlight]) -> None:
        for row in rows:
            self._judge_faces(row, [one for one in row.faces if one.decision is None])

    def _judge_faces(self, row: RowInFlight, faces: Sequence[FaceInFlight]) -> None:
        """Chooses what becomes of some faces of a row."""
        made = [(one, self._case(row, one)) for one in faces if one.face.error is None]
        cases = [(one, (case, self._decide.draw(case))) for one, case in made if case is not None]
        pairs = [pair for _, pair in cases]
        decisions = call_or_bisect(self._decide.choose, pairs, "judge_failed") if pairs else []
        for (one, _), decision in zip(cases, decisions, strict=True):
            if isinstance(decision, RowError):
                one.face.fail(decision)
                continue
            assert one.lq is not None, "every case comes with it"
            one.decision, one.written = decision, decision.at(one.lq)

    def _case(self, row: RowInFlight, one: FaceInFlight) -> Case | None:
        """A face before and after the method; None, with the face failed, if it is not finite."""
        assert one.crop is not None and one.restored is not None, "only faces that the method has restored are judged"
        crop, restored, one.crop, one.restored = one.crop, one.restored, None, None
        if not is_finite(restored):
            one.face.fail(RowError("method_failed", "the method gave pixels that are not finite"))
            return None
        pixels = as_pixels(restored, row.image, one.face, self._job.care.resize_back)
        with stage("align"):
            one.lq = crop.pixels
            native = self._framing.native(row.image, one.face) if self._decide.needs_crops else one.lq
        with stage("score"):
            one.face.sharpness_input = sharpness(one.lq)
        return Case(native, pixels, one.face.side or len(native), one.face.seed, row.image.enlargement.factor)

    def _score(self, rows: Sequence[RowInFlight]) -> None:
        decided, triples = [], []
        for row, one in all_faces(rows):
            if one.decision is not None and one.lq is not None and one.written is not None:
                decided.append((one.face, one.decision))
                triples.append(FaceTriple(one.lq, one.written, row.image.gt))
        for (face, decision), scored in zip(decided, self._scorer.score(triples), strict=True):
            face.take(decision, scored)

    def _paste(self, rows: Sequence[RowInFlight]) -> None:
        for row in rows:
            row.faces = []
            if failure := row.image.failure:
                row.reject(failure)
                continue
            began = time.perf_counter()
            row.composed = self._framing.compose(row.image)
            if self._redraws:
                row.image.seconds += time.perf_counter() - began

    def _encode(self, rows: Sequence[RowInFlight]) -> None:
        for row in rows:
            try:
                row.done = self._encoded(row)
            except RowError as error:
                row.reject(error)
            row.opened = row.composed = None

    def _encoded(self, row: RowInFlight) -> Done:
        """The row of `data/`."""
        job, opened, composed = self._job, row.image, row.composed
        assert composed is not None, "only rows whose image is whole again are encoded"
        factor = opened.enlargement.factor
        written = notes_on(opened.image, job.format, composed, factor, is_redrawn=self._redraws and factor > 1)
        values = {
            "id": row.row.id,
            "restored": {"bytes": encode(composed, job.format, job.quality, opened.image, factor), "path": None},
            "width": composed.shape[1],
            "height": composed.shape[0],
            "faces": [face.to_json() for face in opened.faces],
            "faces_found": len(opened.faces),
            **{metric: opened.worst(metric) for metric in BIN_WIDTHS},
            "method": job.method.name,
            "fingerprint": job.method.fingerprint,
            "seed": row.row.seed,
            "seconds": opened.seconds,
            "note": "; ".join(filter(None, (written, opened.enlargement.note))) or None,
        }
        features = {place: face.scored.features for place, face in enumerate(opened.faces) if face.scored}
        return Done(row.row, values, features)
