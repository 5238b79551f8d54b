"""Workers behind one small interface: Ray actors, or threads of this process.

Each worker has at most `IN_HAND` shards: one on the accelerator, the other decoding, encoding or uploading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bfr_models.errors import BfrError
from tasks.runs.commits import Record
from tasks.worker.job import Job, Order

IN_HAND = 2
STOP_SECONDS = 10.0  # that threads have to stop; a call of the method cannot be ended, only left


class WorkerLostError(Exception):
    """A worker died, or was killed because it hung."""


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


def cannot_load(job: Job, error: BaseException) -> BfrError:
    """What to raise when a worker's method does not load: another worker would fare no better."""
    if isinstance(error, BfrError):
        return error
    return BfrError(
        f"a worker could not load {job.method.name} on {job.device}: {type(error).__name__}: {error}; mend that, "
        "then run the same command again"
    )
