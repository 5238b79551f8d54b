"""One worker as a Ray actor: what runs in its process, and what the driver knows of it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError

from tasks.config.environment import expect_imports, wait_briefly
from tasks.engine.pool import IN_HAND
from tasks.engine.same_code import introduce
from tasks.engine.worker_log import Line, WorkerLog, relay
from tasks.runs.commits import Record
from tasks.worker.job import Job, Order

PULSE_SECONDS = 10.0  # how often a worker is asked for its number of batches, and for what it has logged


class WorkerActor:
    """A `ShardWorker` in a process of its own; only there torch is imported."""

    def __init__(self, job: Job) -> None:
        self._job, self._log = job, WorkerLog()

    def place(self) -> tuple[int, str]:
        """(process id, node id): the first thing that is known, and only once there is room for the actor."""
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def load(self, threads: int) -> dict[str, Any]:
        """Loads the method, if its code is the driver's; returns which code it is, and where it runs."""
        introduction = introduce(self._job)
        expect_imports()
        wait_briefly()
        from tasks.worker.shard_worker import ShardWorker

        self._worker = ShardWorker(replace(self._job, threads=threads))
        self._worker.load()
        return introduction

    def pulse(self) -> tuple[int, list[Line]]:
        """How many batches are done, and what was logged since the last call."""
        return self._worker.batches, self._log.take()

    def run(self, order: Order) -> tuple[Record | None, list[Line]]:
        return self._worker.run(order), self._log.take()


@dataclass
class Actor:
    """The driver's view of one: pending, placed (it has a process and loads), ready, and dead in the end."""

    handle: Any
    placing: Any  # the ref of `place`; None once the actor has a process
    loading: Any = None  # the ref of `load`, from then on until the method is loaded
    ready: bool = False
    alive: bool = True
    leaves: bool = False  # the end of its node is announced: it gets nothing more to do
    pid: int | None = None
    node_id: str = ""
    node: str = ""  # its name and address, once the method is loaded
    created: float = field(default_factory=time.monotonic)
    in_hand: dict[Any, tuple[Order, float]] = field(default_factory=dict)
    hung: float | None = None  # the deadline in seconds, once it was killed for missing it
    pulse_ref: Any = None  # of the call of `pulse` under way
    asked_at: float = 0.0
    batches: int = 0  # its last answer
    batch_at: float = 0.0  # when that answer was a new one

    @property
    def refs(self) -> list[Any]:
        """Of the calls that it has not answered."""
        return [*self.in_hand, *(ref for ref in (self.placing, self.loading) if ref is not None)]

    @property
    def orders(self) -> list[int]:
        """The ids of those in hand."""
        return [id(order) for order, _ in self.in_hand.values()]

    @property
    def works(self) -> bool:
        """Whether it takes orders."""
        return self.alive and self.ready and not self.leaves

    @property
    def free_slots(self) -> int:
        if not self.works or any(order.is_suspect for order, _ in self.in_hand.values()):
            return 0
        return IN_HAND - len(self.in_hand)

    @property
    def age(self) -> float:
        """Seconds since it was asked for."""
        return time.monotonic() - self.created

    def feel_pulse(self, now: float) -> None:
        """Notes when it has done another batch, and relays what it says. A dead one does not answer: its failed orders
        tell."""
        if self.pulse_ref is None and now - self.asked_at > PULSE_SECONDS:
            self.pulse_ref, self.asked_at = self.handle.pulse.remote(), now
        elif self.pulse_ref is not None and ray.wait([self.pulse_ref], timeout=0)[0]:
            ref, self.pulse_ref = self.pulse_ref, None
            with suppress(RayError):
                batches, lines = ray.get(ref)
                relay(lines)
                if batches != self.batches:
                    self.batches, self.batch_at = batches, now
