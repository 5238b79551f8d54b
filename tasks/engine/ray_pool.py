"""Long-lived Ray actors as workers. An actor that dies is replaced, and its shards come back as outcomes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from bfr_models.errors import BfrError
from tasks.config.environment import expect_imports
from tasks.engine.placement import waiting_for
from tasks.engine.pool import IN_HAND, Outcome, WorkerLostError, cannot_load
from tasks.engine.ray_cluster import end_processes
from tasks.engine.ray_head import RayHead
from tasks.engine.same_code import check_introduction, introduce, lacks_package, node_at
from tasks.engine.worker_log import Line, WorkerLog, relay
from tasks.runs.commits import Record
from tasks.storage.waits import WaitLines
from tasks.worker.job import Job, Order

MIN_DEADLINE = 600.0  # seconds for a shard: 20 x the longest so far, at least this
# Seconds until the first shard is done, for each batch: how many rows and faces a shard has is not known, but what a
# batch may take is (eight 512 px faces take 50 minutes on two CPU cores).
FIRST_DEADLINE = {"cuda": 3600.0, "cpu": 2 * 3600.0}
PULSE_SECONDS = 10.0  # how often a worker is asked for its number of batches, and for what it has logged
MIN_TRIAL_DEADLINE = 60.0  # seconds for a trial of some of a shard's rows: their share of its deadline, at least this
# Actors that die with nothing done in between, suspects not counted: something is wrong with all of them. Three times
# the number of workers if that is more, because a node that goes takes all its actors with it.
MAX_LOSSES_IN_A_ROW = 6


class _WorkerActor:
    """A `ShardWorker` in a process of its own; only there torch is imported."""

    def __init__(self, job: Job) -> None:
        self._job, self._log = job, WorkerLog()

    def pid(self) -> int:
        """The process id: the first thing that is known, and only once there is room for the actor."""
        return os.getpid()

    def load(self) -> dict[str, Any]:
        """Loads the method, if its code is the driver's; returns which code it is, and where it runs."""
        introduction = introduce(self._job)
        expect_imports()
        from tasks.worker.shard_worker import ShardWorker

        self._worker = ShardWorker(self._job)
        self._worker.load()
        return introduction

    def pulse(self) -> tuple[int, list[Line]]:
        """How many batches are done, and what was logged since the last call."""
        return self._worker.batches, self._log.take()

    def run(self, order: Order) -> tuple[Record | None, list[Line]]:
        return self._worker.run(order), self._log.take()


@dataclass
class _Actor:
    handle: Any
    placing: Any  # the ref of `pid`; None once the actor has a process
    loading: Any  # the ref of `load`; None once the method is loaded
    pid: int | None = None
    node: str = ""  # its name and address, once the method is loaded
    alive: bool = True
    created: float = field(default_factory=time.monotonic)
    in_hand: dict[Any, tuple[Order, float]] = field(default_factory=dict)
    hung: float | None = None  # the deadline in seconds, once it was killed for missing it
    pulse_ref: Any = None  # of the call of `pulse` under way
    asked_at: float = 0.0
    batches: int = 0  # its last answer
    batch_at: float = 0.0  # when that answer was a new one

    @property
    def free_slots(self) -> int:
        return IN_HAND - len(self.in_hand) if self.alive and self.loading is None else 0

    def placed(self) -> None:
        """Its process is there, or died at once, which `load` tells as well."""
        placing, self.placing = self.placing, None
        with suppress(RayError):
            self.pid = ray.get(placing)


class RayPool:
    """`workers` actors of `gpus` GPUs each in the connected cluster; `ours`: this process alone uses the cluster."""

    def __init__(
        self,
        head: RayHead,
        job: Job,
        workers: int,
        gpus: float,
        start_timeout: float,
        shard_timeout: float | None = None,
        ours: bool = False,
    ):
        self._head, self._job, self._shard_timeout, self._ours = head, job, shard_timeout, ours
        self._gpus, self._start_timeout, self._waits = gpus, start_timeout, WaitLines()
        self._max_losses = max(MAX_LOSSES_IN_A_ROW, 3 * workers)
        self._class = ray.remote(_WorkerActor).options(
            # One more thread than shards, to answer `batches`. No restarts and retries by Ray: a shard that kills its
            # worker would kill every other one as well.
            num_gpus=gpus,
            num_cpus=1,
            max_concurrency=IN_HAND + 1,
            max_restarts=0,
            max_task_retries=0,
        )
        self._actors = [self._new_actor() for _ in range(workers)]
        self._longest = 0.0  # seconds that a shard has taken
        self._losses = 0  # in a row

    def free_slots(self) -> int:
        return sum(actor.free_slots for actor in self._actors)

    def workers(self) -> tuple[int, int]:
        actors = list(self._actors)
        return sum(actor.alive and actor.loading is None for actor in actors), sum(actor.alive for actor in actors)

    def submit(self, order: Order) -> None:
        actor = max(self._actors, key=lambda actor: actor.free_slots)
        actor.in_hand[actor.handle.run.remote(order)] = (order, time.monotonic())

    def check(self) -> None:
        self._head.check()

    def poll(self, timeout: float) -> list[Outcome]:
        self._kill_hung_actors()
        self._say_what_it_waits_for()
        pending = ((*actor.in_hand, actor.placing, actor.loading) for actor in self._actors)
        refs = [ref for actors in pending for ref in actors if ref is not None]
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout) if refs else ([], [])
        if done:  # and all others that have ended by now
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        outcomes = []
        for actor in list(self._actors):
            if actor.placing in done:
                actor.placed()
            if actor.loading in done:
                self._loaded(actor)
            outcomes += [self._collect(actor, ref) for ref in list(actor.in_hand) if ref in done]
        self._actors = [actor for actor in self._actors if actor.alive or actor.in_hand]
        return outcomes

    def close(self) -> None:
        if self._head.answers():  # else nobody carries it out
            for actor in self._actors:
                with suppress(RayError):  # the cluster may be gone already
                    ray.kill(actor.handle)
        if self._ours:  # also where a signal to the whole group has ended the head first
            end_processes(actor.pid for actor in self._actors if actor.alive and actor.pid is not None)

    def _new_actor(self) -> _Actor:
        handle = self._class.remote(self._job)
        return _Actor(handle, handle.pid.remote(), handle.load.remote())

    def _loaded(self, actor: _Actor) -> None:
        loading, actor.loading = actor.loading, None
        try:
            actor.node = check_introduction(self._job, ray.get(loading))
        except RayTaskError as error:
            raise cannot_load(self._job, _cause(error), node_at(getattr(error, "ip", ""))) from None
        except RayError as error:
            if lacking := lacks_package(error):
                raise lacking from None
            self._losses += 1
            self._replace(actor, error)

    def _collect(self, actor: _Actor, ref: Any) -> Outcome:
        order, submitted = actor.in_hand.pop(ref)
        try:
            record, lines = ray.get(ref)
        except RayTaskError as error:
            return Outcome(order, error=_cause(error), node=actor.node)
        except RayError as error:
            lost = WorkerLostError(f"no result in {actor.hung:.0f} s" if actor.hung else _why_it_died(error))
            if not order.is_suspect:
                self._losses += actor.alive  # once, however many orders it had in hand
            self._replace(actor, lost)
            return Outcome(order, error=lost, node=actor.node, worker_lost=True)
        if order.trial is None:
            self._longest = max(self._longest, time.monotonic() - submitted)
        self._losses = 0
        relay(lines)
        return Outcome(order, record=record, node=actor.node)

    def _replace(self, actor: _Actor, error: Exception) -> None:
        """Starts a new actor for a dead one. The orders of the dead one come back as its calls fail."""
        if not actor.alive:
            return
        actor.alive = False
        if self._losses >= self._max_losses:
            raise BfrError(
                f"{self._losses} workers died in a row with nothing done in between, the last of: {error}; look for "
                "memory (fewer --actors, a smaller --batch-size) and at Ray's logs, then run the same command again"
            )
        self._actors.append(self._new_actor())

    def _kill_hung_actors(self) -> None:
        now = time.monotonic()
        for actor in self._actors:
            is_first = not self._longest and not self._shard_timeout
            if actor.in_hand:
                _feel_pulse(actor, now)
            for order, submitted in actor.in_hand.values():
                deadline = self._deadline(order)
                since = max(submitted, actor.batch_at) if is_first else submitted
                if actor.hung is None and now - since > deadline:
                    actor.hung = deadline
                    ray.kill(actor.handle)

    def _say_what_it_waits_for(self) -> None:
        """BfrError once no worker at all was ready in time."""
        missing = [actor for actor in self._actors if actor.loading is not None]
        if not missing:
            return
        waited = time.monotonic() - min(actor.created for actor in missing)
        is_late = len(missing) == len(self._actors) and all(self._left(actor) <= 0 for actor in missing)
        if not is_late and not self._waits.are_due(waited):
            return
        workers, ready = len(self._actors), len(self._actors) - len(missing)
        placed = sum(actor.placing is None for actor in self._actors)
        why = waiting_for(self._gpus, workers, placed, ready, ray.cluster_resources())
        if is_late:
            raise BfrError(
                f"expected a worker to be ready within {self._start_timeout:.0f} s, found none ({why}); lower --actors "
                "or --gpus-per-actor, add nodes, or wait longer with --start-timeout; then run the same command again"
            )
        left = max(self._left(actor) for actor in missing)
        self._waits.say(f"{why} ({'the others work meanwhile' if ready else f'for at most {left:.0f} s more'})")

    def _left(self, actor: _Actor) -> float:
        """Seconds that an actor has left to be ready."""
        return actor.created + self._start_timeout - time.monotonic()

    def _deadline(self, order: Order) -> float:
        """Seconds that an order may take; until the first shard is done, that it may take without another batch."""
        first = FIRST_DEADLINE[self._job.device]
        deadline = max(MIN_DEADLINE, 20 * self._longest) if self._longest else first
        deadline = self._shard_timeout or deadline
        if order.trial is None:
            return deadline
        return min(deadline, max(MIN_TRIAL_DEADLINE, deadline * len(order.trial) / order.shard.rows))


def _feel_pulse(actor: _Actor, now: float) -> None:
    """Notes when an actor has done another batch, and relays what it says. A dead one does not answer: its failed
    orders tell."""
    if actor.pulse_ref is None and now - actor.asked_at > PULSE_SECONDS:
        actor.pulse_ref, actor.asked_at = actor.handle.pulse.remote(), now
    elif actor.pulse_ref is not None and ray.wait([actor.pulse_ref], timeout=0)[0]:
        ref, actor.pulse_ref = actor.pulse_ref, None
        with suppress(RayError):
            batches, lines = ray.get(ref)
            relay(lines)
            if batches != actor.batches:
                actor.batches, actor.batch_at = batches, now


def _why_it_died(error: RayError) -> str:
    """Ray's reason in a few words: its whole message names machines and folders, and this goes into `rejected/`."""
    return f"the worker died ({type(error).__name__}{', its node died' if 'node has died' in str(error) else ''})"


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, BaseException) else error
