"""One worker: holds a method and restores shards with it, from the source's bytes to the commit.

The forms that a row takes on its way, and how each step may fail:

    cell of a row group -> Row          read_shard      the row group cannot be read
      -> OpenRow                        open_rows       the image does not decode
      -> Face -> Crop                   framing         no face is found; too small; over the cap
      -> FaceBatch -> restored crop     restore_rows    the method fails, or its pixels are not finite
      -> Case -> Decision               decide          no gain expected: the face keeps its pixels; the judge fails
      -> FaceTriple -> ScoredFace       scoring/scorer  the identity is lost: the face keeps its pixels
      -> values -> Done                 restore_rows    the image does not encode
      -> Arrow row of `data/` or `rejected/`            output

A plain class: Ray makes an actor of it, tests and `--engine local` call it directly. Several calls of `run` may be in
progress at once: their rows go through one line of stages (`restore_rows`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from bfr_models.errors import BfrError
from bfr_models.metrics.summary import Summary
from tasks.runs.commits import Record, commit_shard
from tasks.runs.face_sizes import SIDE_BIN
from tasks.runs.outcomes import outcome_word
from tasks.runs.plan import require_planned
from tasks.runs.shards import Shard
from tasks.runs.single_writer import learn_conditions
from tasks.storage.refusals import refusal
from tasks.storage.store import Store
from tasks.worker.accelerator import use_threads
from tasks.worker.in_flight import StoppedError
from tasks.worker.job import Job, Order
from tasks.worker.output import shard_output
from tasks.worker.read_shard import read_shard
from tasks.worker.restore_rows import RestoreRows
from tasks.worker.stages import Clocks, stage


@dataclass(frozen=True)
class Sample:
    """What restoring some rows cost."""

    rows: int
    restored: int
    seconds: float
    encoded_bytes: int
    outcomes: dict[str, int]  # of faces
    sides: Summary  # of faces


class ShardWorker:
    """Created in a moment; call `load` once, then `run` for each shard, then `close`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stop = threading.Event()

    def load(self) -> None:
        """Loads the networks. Not in the constructor: from there, Ray would report an error as a dead actor."""
        self._threads = torch.get_num_threads()
        use_threads(1)  # in this thread and new ones, see `tasks.worker.accelerator`
        self._clocks = Clocks(self._job.traced)
        try:
            self._rows = RestoreRows(self._job, self._stop, self._clocks, self._job.threads or self._threads)
        except BaseException:
            use_threads(self._threads)
            raise

    def close(self) -> None:
        """Calls of `run` raise StoppedError soon, and the threads end."""
        self._stop.set()
        self._rows.close()
        use_threads(self._threads)

    @property
    def batches(self) -> int:
        """Batches done so far: a sign of life."""
        return self._rows.batches

    @cached_property
    def _store(self) -> Store:
        """Opened by the first commit: samples and trials must not touch the destination."""
        store = Store(self._job.destination)
        learn_conditions(store)
        return store

    def run(self, order: Order) -> Record | None:
        """Restores, scores and commits one shard; returns the commit record that counts. None after a trial, which
        restores and encodes rows but commits nothing. The record of a traced job has its `trace` on top."""
        try:
            with self._clocks.in_hand():
                record = self._run(order, time.monotonic())
        except OSError as error:
            if refused := refusal(error):  # said here: between processes an error loses its cause, the store's answer
                raise BfrError(str(refused)) from error
            raise
        return record if record is None or not self._job.traced else record | {"trace": self._clocks.trace()}

    def _run(self, order: Order, started: float) -> Record | None:
        if self._stop.is_set():  # it waited for its turn
            raise StoppedError("the worker was told to stop")
        with stage("read"):
            source = read_shard(order, self._job)
        results = self._rows.restore(source, order.rows_of(source.rows))
        if order.trial is not None:
            return None
        with stage("write"):
            files, facts = shard_output(self._job, order.shard, source, results, self._rows.features_source)
            if self._stop.is_set():
                raise StoppedError("the worker was told to stop")
            still_planned = partial(require_planned, self._store, order.shard)
            return commit_shard(self._store, order.shard, files, facts, still_planned, partial(self._times, started))

    def _times(self, started: float) -> dict[str, Any]:
        return {"seconds": round(time.monotonic() - started, 3), "timings": self._clocks.timings()}

    def sample(self, shard: Shard, limit: int) -> Sample:
        """Restores and encodes up to `limit` rows of a shard, and commits nothing."""
        source = read_shard(Order(shard), self._job)
        rows = source.rows[:limit]
        began = time.monotonic()
        done = [done.values for done in self._rows.restore(source, rows) if done.values]
        seconds, sizes = time.monotonic() - began, [len(values["restored"]["bytes"]) for values in done]
        faces = [face for values in done for face in values["faces"]]
        outcomes = Counter(outcome_word(face["outcome"]) for face in faces)
        sides = Summary.of((face["side"] for face in faces), SIDE_BIN)
        return Sample(len(rows), len(sizes), seconds, sum(sizes), dict(outcomes.most_common()), sides)
