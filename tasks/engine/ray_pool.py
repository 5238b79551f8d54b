"""Long-lived Ray actors as workers, as many as `scaling` says. The shards of one that dies come back as outcomes."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import ray
from ray._raylet import IMPLICIT_RESOURCE_PREFIX  # type: ignore[attr-defined]  # not in its .pyi
from ray.exceptions import RayError, RayTaskError

from bfr_models.errors import BfrError
from tasks.engine.placement import waiting_for
from tasks.engine.pool import IN_HAND, Outcome, WorkerLostError, cannot_load
from tasks.engine.ray_actor import Actor, WorkerActor
from tasks.engine.ray_cluster import cluster_nodes, end_processes
from tasks.engine.ray_head import RayHead
from tasks.engine.same_code import check_introduction, lacks_package, node_at
from tasks.engine.scaling import Limits, Node, Share, threads_on, wanted_workers
from tasks.engine.worker_log import relay
from tasks.storage.waits import WaitLines
from tasks.worker.job import Job, Order

MIN_DEADLINE = 600.0  # seconds for a shard: 20 x the longest so far, at least this
# Seconds until the first shard is done, for each batch: how many rows and faces a shard has is not known, but what a
# batch may take is (eight 512 px faces take 50 minutes on two CPU cores).
FIRST_DEADLINE = {"cuda": 3600.0, "cpu": 2 * 3600.0}
MIN_TRIAL_DEADLINE = 60.0  # seconds for a trial of some of a shard's rows: their share of its deadline, at least this
# Actors that die with nothing done in between, suspects not counted: something is wrong with all of them. Three times
# the number of workers if that is more, because a node that goes takes all its actors with it.
MAX_LOSSES_IN_A_ROW = 6
RESIZE_SECONDS = 2.0  # between two looks at the cluster
PLACING_SECONDS = 120.0  # after which an actor that has no process is taken to have no room


class RayPool:
    """Actors in the connected cluster, within `limits`; each takes `share` of its node. `ours`: this process alone uses
    the cluster."""

    waiting_room = 0  # what waits at one actor could be begun by another

    def __init__(
        self,
        head: RayHead,
        job: Job,
        share: Share,
        limits: Limits,
        start_timeout: float,
        shard_timeout: float | None = None,
        ours: bool = False,
    ):
        self._head, self._job, self._shard_timeout, self._ours = head, job, shard_timeout, ours
        self._share, self._limits = share, limits
        self._start_timeout, self._waits = start_timeout, WaitLines()
        # Each node has one of such a resource, whatever its name: Ray Serve makes `max_replicas_per_node` of it.
        once = {f"{IMPLICIT_RESOURCE_PREFIX}{uuid.uuid4().hex}": 1.0} if share.whole_node else None
        self._class = ray.remote(WorkerActor).options(
            # One more thread than shards, to answer `batches`. No restarts and retries by Ray: a shard that kills its
            # worker would kill every other one as well.
            num_gpus=share.gpus,
            num_cpus=share.cpus,
            resources=once,
            scheduling_strategy="DEFAULT" if share.gpus else "SPREAD",
            max_concurrency=IN_HAND + 1,
            max_restarts=0,
            max_task_retries=0,
        )
        self._actors: list[Actor] = []
        self._nodes: dict[str, Node] = {}  # by id, as they were at the last look
        self._looked = self._placed = float("-inf")  # when
        self._wanted = 0
        self._forgotten = set[int]()  # ids of orders in hand
        self._longest = 0.0  # seconds that a shard has taken
        self._losses = 0  # in a row
        self.resize(limits.least)  # the first load while it is found out what there is to do

    def resize(self, left: int) -> None:
        """Starts and lets go actors as the cluster and the number of shards that are `left` have it."""
        now = time.monotonic()
        # Right after an actor was placed its share may still count as free.
        if now - max(self._looked, self._placed) < RESIZE_SECONDS:
            return
        self._looked = now
        try:
            self._nodes = {node.id: node for node in cluster_nodes()}
        except RayError:  # `RayHead` tells if it stays so
            return
        leaving = {node.id for node in self._nodes.values() if node.leaves}
        for actor in self._actors:
            actor.leaves = actor.leaves or actor.node_id in leaving
        staying = [actor for actor in self._actors if actor.alive and not actor.leaves]
        self._wanted = wanted_workers(self._limits, len(staying), self._room(staying), left)
        self._let_go(len(staying) - self._wanted)
        self._actors += [self._new_actor() for _ in range(self._wanted - len(staying))]

    def _room(self, staying: Iterable[Actor]) -> int:
        """How many actors the cluster's nodes hold. One without a process is being started, on a share that no longer
        counts as free, or it has yet to get one that does."""
        taken = Counter(actor.node_id for actor in staying)
        starting = sum(actor.placing is not None and actor.age < PLACING_SECONDS for actor in staying)
        free = self._share.room(self._nodes.values(), taken)
        return sum(taken.values()) - taken[""] + max(starting, free)

    def _let_go(self, count: int) -> None:
        """Ends up to `count` actors that have nothing to do, those first that are furthest from working, and all on
        nodes that leave."""
        idle = [actor for actor in self._actors if actor.alive and self._forgotten.issuperset(actor.orders)]
        idle.sort(key=lambda actor: (actor.ready, actor.pid is not None))
        leaving, staying = ([actor for actor in idle if actor.leaves is leaves] for leaves in (True, False))
        for actor in [*leaving, *staying[: max(0, count)]]:
            actor.alive = False
            self._actors.remove(actor)
            self._forgotten.difference_update(actor.orders)  # other orders may get their ids
            with suppress(RayError):  # it may have died just now
                ray.kill(actor.handle)

    def begin_to_load(self, seconds: float) -> None:
        """Returns once a first actor has a process and loads, or after so long. For the main thread: a signal is heard
        in between, which Ray does not let through while it waits."""
        until = time.monotonic() + seconds
        while all(actor.placing is not None for actor in self._actors) and time.monotonic() < until:
            self.poll(0)
            time.sleep(0.02)

    def free_slots(self) -> int:
        return sum(actor.free_slots for actor in self._actors)

    def idle_workers(self) -> int:
        return sum(actor.free_slots == IN_HAND for actor in self._actors)

    def workers(self) -> tuple[int, int]:
        return sum(actor.works for actor in list(self._actors)), self._wanted

    def submit(self, order: Order) -> None:
        actor = max(self._actors, key=lambda actor: actor.free_slots)
        actor.in_hand[actor.handle.run.remote(order)] = (order, time.monotonic())

    def forget(self, order: Order) -> None:
        self._forgotten.add(id(order))

    def check(self) -> None:
        self._head.check()

    def poll(self, timeout: float) -> list[Outcome]:
        self._kill_hung_actors()
        refs = [ref for actor in self._actors for ref in actor.refs]
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout) if refs else ([], [])
        if done:  # and all others that have ended by now
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended, outcomes = set(done), []
        for actor in list(self._actors):
            if actor.placing in ended:
                self._place(actor)
            elif actor.loading in ended:
                self._loaded(actor)
            outcomes += [self._collect(actor, ref) for ref in list(actor.in_hand) if ref in ended]
        self._actors = [actor for actor in self._actors if actor.alive or actor.in_hand]
        self._say_what_it_waits_for()  # after it was seen who is ready: nobody may have asked for long
        return outcomes

    def close(self) -> None:
        if self._head.answers():  # else nobody carries it out
            for actor in self._actors:
                with suppress(RayError):  # the cluster may be gone already
                    ray.kill(actor.handle)
        if self._ours:  # also where a signal to the whole group has ended the head first
            end_processes(actor.pid for actor in self._actors if actor.alive and actor.pid is not None)

    def _new_actor(self) -> Actor:
        handle = self._class.remote(self._job)
        return Actor(handle, handle.place.remote())

    def _place(self, actor: Actor) -> None:
        """It has a process, on a node: what it may use of it is known."""
        placing, actor.placing = actor.placing, None
        try:
            actor.pid, actor.node_id = ray.get(placing)
        except RayTaskError as error:
            raise cannot_load(self._job, _cause(error), node_at(getattr(error, "ip", ""))) from None
        except RayError as error:
            self._lost_early(actor, error)
            return
        self._placed = time.monotonic()
        nodes = self._nodes if actor.node_id in self._nodes else {node.id: node for node in cluster_nodes()}
        node = nodes.get(actor.node_id, Node(actor.node_id, {}, {}))
        actor.loading = actor.handle.load.remote(threads_on(node, nodes.values(), self._share, self._limits))

    def _loaded(self, actor: Actor) -> None:
        loading, actor.loading = actor.loading, None
        try:
            actor.node = check_introduction(self._job, ray.get(loading))
            actor.ready = True
        except RayTaskError as error:
            raise cannot_load(self._job, _cause(error), node_at(getattr(error, "ip", ""))) from None
        except RayError as error:
            self._lost_early(actor, error)

    def _lost_early(self, actor: Actor, error: RayError) -> None:
        if lacking := lacks_package(error):
            raise lacking from None
        self._losses += 1
        self._bury(actor, error)

    def _collect(self, actor: Actor, ref: Any) -> Outcome:
        order, submitted = actor.in_hand.pop(ref)
        self._forgotten.discard(id(order))
        try:
            record, lines = ray.get(ref)
        except RayTaskError as error:
            return Outcome(order, error=_cause(error), node=actor.node)
        except RayError as error:
            lost = WorkerLostError(f"no result in {actor.hung:.0f} s" if actor.hung else _why_it_died(error))
            node_lost = actor.leaves or _node_died(error)
            if not (order.is_suspect or actor.leaves):
                self._losses += actor.alive  # once, however many orders it had in hand
            self._bury(actor, lost)
            return Outcome(order, error=lost, node=actor.node, worker_lost=True, node_lost=node_lost)
        if order.trial is None:
            self._longest = max(self._longest, time.monotonic() - submitted)
        self._losses = 0
        relay(lines)
        return Outcome(order, record=record, node=actor.node)

    def _bury(self, actor: Actor, error: Exception) -> None:
        """`resize` may start another for it. Its orders come back as its calls fail."""
        actor.alive = False
        self._looked = self._placed = float("-inf")
        if self._losses >= max(MAX_LOSSES_IN_A_ROW, 3 * self._wanted):
            raise BfrError(
                f"{self._losses} workers died in a row with nothing done in between, the last of: {error}; look for "
                "memory (fewer --actors, a smaller --batch-size) and at Ray's logs, then run the same command again"
            )

    def _kill_hung_actors(self) -> None:
        now = time.monotonic()
        for actor in self._actors:
            is_first = not self._longest and not self._shard_timeout
            if actor.in_hand:
                actor.feel_pulse(now)
            for order, submitted in actor.in_hand.values():
                deadline = self._deadline(order)
                since = max(submitted, actor.batch_at) if is_first else submitted
                if actor.hung is None and now - since > deadline:
                    actor.hung = deadline
                    ray.kill(actor.handle)

    def _say_what_it_waits_for(self) -> None:
        """BfrError once no worker at all was ready in time."""
        missing = [actor for actor in self._actors if actor.alive and not actor.ready]
        if not missing:
            return
        waited = max(actor.age for actor in missing)
        is_late = len(missing) == len(self._actors) and all(actor.age > self._start_timeout for actor in missing)
        if not is_late and not self._waits.are_due(waited):
            return
        workers, ready = len(self._actors), len(self._actors) - len(missing)
        placed = sum(actor.placing is None for actor in self._actors)
        why = waiting_for(self._share, workers, placed, ready, ray.cluster_resources())
        if is_late:
            raise BfrError(
                f"expected a worker to be ready within {self._start_timeout:.0f} s, found none ({why}); lower --actors "
                "or --gpus-per-actor, add nodes, or wait longer with --start-timeout; then run the same command again"
            )
        left = self._start_timeout - min(actor.age for actor in missing)
        self._waits.say(f"{why} ({'the others work meanwhile' if ready else f'for at most {left:.0f} s more'})")

    def _deadline(self, order: Order) -> float:
        """Seconds that an order may take; until the first shard is done, that it may take without another batch."""
        first = FIRST_DEADLINE[self._job.device]
        deadline = max(MIN_DEADLINE, 20 * self._longest) if self._longest else first
        deadline = self._shard_timeout or deadline
        if order.trial is None:
            return deadline
        return min(deadline, max(MIN_TRIAL_DEADLINE, deadline * len(order.trial) / order.shard.rows))


def _why_it_died(error: RayError) -> str:
    """Ray's reason in a few words: its whole message names machines and folders, and this goes into `rejected/`."""
    return f"the worker died ({type(error).__name__}{', its node died' if _node_died(error) else ''})"


def _node_died(error: RayError) -> bool:
    return "node has died" in str(error)


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, BaseException) else error
