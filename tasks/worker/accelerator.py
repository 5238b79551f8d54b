"""The method on its device: restores batches of faces, one at a time, whoever asks.

On a CPU one thread of a worker, this one's, computes with several of OpenMP's, and every other with one. For libgomp
counts the teams of all threads: as soon as those have more members than there are cores, they sleep between any two
operations instead of waiting awake, which takes a fifth to a third of a small network's speed. A thread keeps its team
from its first operation that is shared out, so that one thread loads the networks, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bfr_models.device import kind_of
from bfr_models.errors import RowError
from bfr_models.registry import load_method
from bfr_models.types import FaceBatch
from tasks.worker.batches import BatchSize, call_or_bisect, is_out_of_memory
from tasks.worker.daemon_threads import DaemonThreads
from tasks.worker.in_flight import FaceInFlight
from tasks.worker.job import Job
from tasks.worker.pipeline import turn
from tasks.worker.stages import stage

Result = TypeVar("Result")


class Accelerator:
    """Two threads may call `restore`: one puts its batch together while the other waits for the method."""

    def __init__(self, job: Job, heed_stop: Callable[[], None], threads: int) -> None:
        """`threads` is the number of threads that compute on a CPU. `heed_stop` raises if there are to be no more
        batches."""
        self._thread: DaemonThreads[Any] | None = None
        if kind_of(job.device) == "cpu":
            self._thread = DaemonThreads(1, partial(use_threads, threads))
        self._restorer = self.compute(partial(load_method, job.method, job.device))
        self._batch_size = BatchSize(job.batch_size, job.device)
        self._heed_stop, self._lock = heed_stop, threading.Lock()
        self.batches = 0  # done so far

    @property
    def side(self) -> int:
        """Of the faces, px."""
        return self._restorer.size

    @property
    def batch_size(self) -> int:
        """Faces in the next batch."""
        return self._batch_size.now

    def close(self) -> None:
        """Ends the thread, once it is idle; what it is asked for afterwards is cancelled."""
        if self._thread is not None:
            self._thread.close(patience=0.1)

    def compute(self, call: Callable[[], Result]) -> Result:
        """The call's result; it is made where networks are called."""
        if self._thread is None:  # a GPU takes calls from any thread, and several at once
            return call()
        result: Result = self._thread.submit(call).result()
        return result

    def detect(self, find: Callable[[], None]) -> None:
        """Finds faces by a network: between batches on a CPU, beside them on a GPU."""
        if self._thread is None:
            find()
            return
        with turn(self._lock):
            self.compute(find)

    def restore(self, faces: Sequence[FaceInFlight]) -> tuple[list[Tensor | RowError], float]:
        """Each face's crop restored, (3, side, side) in [-1, 1] or not finite; or why the method fails on it. And the
        seconds that it took."""
        with stage("align"):
            batch = _stacked(faces)
        with turn(self._lock):
            self._heed_stop()
            began = time.perf_counter()
            restored = self._in_parts(batch)
            seconds = time.perf_counter() - began
            self._batch_size.note(len(faces), seconds)
            self.batches += 1
        return restored, seconds

    def _in_parts(self, batch: FaceBatch) -> list[Tensor | RowError]:
        """What fitted when the batch was put together may not any more: another may have run out of memory since."""
        restored = list[Tensor | RowError]()
        while (first := len(restored)) < len(batch):
            places = range(first, min(first + self._batch_size.most, len(batch)))
            restored += call_or_bisect(partial(self._call, batch), places, "method_failed")
        return restored

    def _call(self, batch: FaceBatch, places: Sequence[int]) -> list[Tensor]:
        some = batch if len(places) == len(batch) else _part(batch, slice(places[0], places[-1] + 1))
        try:
            restored = self.compute(partial(self._restorer.restore, some)).images
        except Exception as error:
            if is_out_of_memory(error):
                self._batch_size.too_large(len(some))
            raise
        # Methods come from other packages, too: check the result before it is scored and written.
        if restored.shape != (expected := (len(some), 3, self.side, self.side)):
            raise ValueError(f"expected faces {expected}, the method gave {tuple(restored.shape)}")
        return list(restored.cpu())


def use_threads(count: int) -> None:
    """For this thread's tensors. Asked first, since a thread's first use of torch sets what another has set last."""
    torch.get_num_threads()
    torch.set_num_threads(count)


def is_finite(face: Tensor) -> bool:
    """Whether all pixels are. One pass, unless their sum overflows."""
    return bool(torch.isfinite(face.sum())) or bool(torch.isfinite(face).all())


def _stacked(faces: Sequence[FaceInFlight]) -> FaceBatch:
    crops = [one.crop for one in faces if one.crop is not None]
    masks = [crop.mask for crop in crops if crop.mask is not None]
    return FaceBatch(
        ids=tuple(one.face.id for one in faces),
        images=torch.from_numpy(np.stack([crop.lq.numpy() for crop in crops])),  # torch's would use all cores for it
        seeds=tuple(one.face.seed for one in faces),
        places=tuple(one.face.place for one in faces),
        masks=torch.stack(masks) if masks else None,
    )


def _part(batch: FaceBatch, places: slice) -> FaceBatch:
    masks = None if batch.masks is None else batch.masks[places]
    in_stream = None if batch.places is None else batch.places[places]
    return FaceBatch(batch.ids[places], batch.images[places], batch.seeds[places], masks, in_stream)
