"""Workers behind one small interface: Ray actors, or threads of this process.

Each worker has at most `IN_HAND` shards: one on the accelerator, the other decoding, encoding or uploading.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from bfr_models.errors import BfrError
from tasks.engine.daemon_threads import DaemonThreads
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.worker.job import Job

IN_HAND = 2
STOP_SECONDS = 10.0  # that threads have to stop; a call of the method cannot be ended, only left


class WorkerLostError(Exception):
    """A worker died, or was killed because it hung."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do with a shard: restore and commit it, unless it says otherwise."""

    shard: Shard
    trial: range | None = None  # restore these rows only, counted from the shard's first, and commit nothing
    poison: Mapping[int, str] = field(default_factory=dict)  # rows to reject untouched, each with the reason
    unreadable: str | None = None  # why all rows are rejected unread
    is_suspect: bool = False  # the shard has cost a worker before: another one says nothing about the run


@dataclass(frozen=True)
class Outcome:
    """What became of an order in a worker's hands; a trial that the worker lived through has no record."""

    order: Order
    record: Record | None = None
    error: BaseException | None = None
    worker_lost: bool = False  # the worker died under it: perhaps, not surely, the shard's fault


class Pool(Protocol):
    def free_slots(self) -> int:
        """How many shards could be submitted now."""
        ...

    def submit(self, order: Order) -> None: ...

    def poll(self, timeout: float) -> list[Outcome]:
        """What has ended, waiting at most `timeout` seconds for the first."""
        ...

    def close(self) -> None:
        """Stops the workers; what they have in hand is not finished, and none of it is committed later."""
        ...


class ThreadPool:
    """One worker in this process: for tests, and for machines where Ray is not wanted. A method that hangs is left to
    whoever started the run, who can end the process; one that kills ends the run."""

    def __init__(self, job: Job) -> None:
        from tasks.worker.shard_worker import ShardWorker  # imports torch, which a driver of Ray actors never needs

        self._worker = ShardWorker(job)
        try:
            self._worker.load()
        except Exception as error:
            raise cannot_load(job, error) from error
        self._threads = DaemonThreads[Record | None](IN_HAND)
        self._in_hand: dict[Future[Record | None], Order] = {}

    def free_slots(self) -> int:
        return IN_HAND - len(self._in_hand)

    def submit(self, order: Order) -> None:
        self._in_hand[self._threads.submit(partial(self._worker.run, order))] = order

    def poll(self, timeout: float) -> list[Outcome]:
        done, _ = wait(self._in_hand, timeout, return_when=FIRST_COMPLETED)
        return [_outcome(self._in_hand.pop(future), future) for future in done]

    def close(self) -> None:
        self._worker.stop.set()
        self._threads.close(STOP_SECONDS)


def cannot_load(job: Job, error: BaseException) -> BfrError:
    """What to raise when a worker's method does not load: another worker would fare no better."""
    if isinstance(error, BfrError):
        return error
    return BfrError(
        f"a worker could not load {job.method.method} on {job.device}: {type(error).__name__}: {error}; mend that, "
        "then run the same command again"
    )


def _outcome(order: Order, future: Future[Record | None]) -> Outcome:
    error = future.exception()
    return Outcome(order, error=error) if error else Outcome(order, record=future.result())
