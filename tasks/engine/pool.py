"""The interface of a pool of workers, which are Ray actors or threads of this process.

A worker works on at most `IN_HAND` shards: while one is on the accelerator, the other is decoded, encoded or uploaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bfr_models.errors import BfrError
from tasks.runs.commits import Record
from tasks.worker.job import Job, Order

IN_HAND = 2
STOP_SECONDS = 3.0  # for threads to stop; a call of the method cannot be interrupted, only abandoned


class WorkerLostError(Exception):
    """A worker died, or was killed because it hung."""


@dataclass(frozen=True)
class Outcome:
    """What became of an order. A trial that the worker survived has neither record nor error."""

    order: Order
    record: Record | None = None
    error: BaseException | None = None
    node: str = ""  # where the worker ran, for messages; "" for this process
    worker_lost: bool = False  # the worker died meanwhile, perhaps because of the shard
    node_lost: bool = False  # and its whole node with it: hardly because of the shard


class Pool(Protocol):
    waiting_room: int
    """How many orders more than `free_slots` may be submitted while nobody polls: they wait for a slot."""

    def resize(self, left: int) -> None:
        """Has as many workers as are of use for this many shards that are not done."""
        ...

    def free_slots(self) -> int:
        """How many orders can be submitted now."""
        ...

    def idle_workers(self) -> int:
        """How many workers have nothing in hand. A suspect may be submitted if there is one, and has it for itself."""
        ...

    def workers(self) -> tuple[int, int]:
        """How many workers are ready, and how many there are to be. Any thread may ask."""
        ...

    def submit(self, order: Order) -> None: ...

    def forget(self, order: Order) -> None:
        """It need not end: its shard is done. Its worker may be let go in the midst of it."""
        ...

    def poll(self, timeout: float) -> list[Outcome]:
        """The orders that have ended; waits at most `timeout` seconds for the first."""
        ...

    def check(self) -> None:
        """BfrError if there is no point in waiting for the workers any longer. Called by another thread than the rest,
        which may hang meanwhile."""
        ...

    def close(self) -> None:
        """Stops the workers. What they have in hand is abandoned, and none of it is committed later."""
        ...


def cannot_load(job: Job, error: BaseException, node: str = "") -> BfrError:
    """What to raise if a worker cannot load its method: on another worker it would fail, too."""
    if isinstance(error, BfrError):
        return error
    return BfrError(
        f"a worker could not load {job.method.name} on {job.device}: {type(error).__name__}: {error}; fix that"
        f"{node and f' on {node}'}, then run the same command again"
    )
