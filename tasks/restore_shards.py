"""Restores shards with a pool of workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice

from bfr_models.device import local_device
from bfr_models.errors import BfrError
from tasks.config.environment import ray_is_elsewhere
from tasks.config.resolve import ResolvedRun
from tasks.engine.busy_exit import DISPATCHER
from tasks.engine.dispatch import Dispatch
from tasks.engine.pool import STOP_SECONDS, Pool
from tasks.engine.ray_session import cluster_is_own, joined_ray
from tasks.engine.scaling import crew_of, described, require_a_place
from tasks.engine.thread_pool import ThreadPool
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.storage.waits import say
from tasks.worker.job import Order, make_job

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.2
PLACE_SECONDS = 10.0  # for the first worker's process to be there, in a cluster of this run's own


_early: list[tuple[ResolvedRun, ExitStack, Pool]] = []  # workers that no recipe has asked for yet
_begun: list[tuple[Pool, Order]] = []  # what such workers have in hand


@contextmanager
def early_workers(resolved: ResolvedRun) -> Iterator[Pool]:
    """Starts the run's workers before its recipe asks for them, by `worker_pool`: for a caller that waits for something
    else meanwhile. They are stopped when the block ends."""
    with ExitStack() as workers:
        pool = workers.enter_context(_started(resolved))
        _early.append(early := (resolved, workers, pool))
        try:
            yield pool
        finally:
            if early in _early:
                _early.remove(early)
            _begun.clear()


def begin_shards(pool: Pool, shards: Iterable[Shard]) -> None:
    """Gives early workers that are ready enough of a run's first shards to keep them busy until `restore_shards`, which
    finds them begun."""
    for shard in islice(shards, pool.free_slots() + pool.waiting_room):
        _begun.append((pool, Order(shard)))
        pool.submit(_begun[-1][1])


@contextmanager
def worker_pool(resolved: ResolvedRun) -> Iterator[Pool]:
    """The run's workers, each of which loads the method once. They are stopped when the block ends."""
    for early in _early:
        asked, workers, pool = early
        if asked == resolved:
            _early.remove(early)
            with workers.pop_all():
                yield pool
            return
    with _started(resolved) as pool:
        yield pool


@contextmanager
def _started(resolved: ResolvedRun) -> Iterator[Pool]:
    run = resolved.run
    if resolved.care.warning:
        _log.warning("%s", resolved.care.warning)
    network = f"{run.method} {resolved.method.preset.name}"
    if run.engine == "local":
        say(f"loading {network}")
        device = local_device() if run.device == "auto" else run.device
        pool: Pool = ThreadPool(make_job(resolved, device, threads=None))
        try:
            yield pool
        finally:
            pool.close()
        return
    with joined_ray():
        from tasks.engine.ray_cluster import cluster_nodes, warn_if_open
        from tasks.engine.ray_head import RayHead
        from tasks.engine.ray_pool import RayPool

        if not run.allow_open_cluster:
            warn_if_open()
        share, limits = crew_of(run, nodes := cluster_nodes())
        if cluster_is_own():
            require_a_place(share, nodes)
        device = "cuda" if share.gpus else "cpu"
        if run.device == "auto" and device == "cpu" and run.gpus_per_actor is None and ray_is_elsewhere():
            say("the cluster has no GPU, so CPUs do the work; one that starts GPU nodes on demand needs --device cuda")
        say(f"loading {network} in {described(limits)} on {'GPUs' if share.gpus else 'CPUs'}")
        job = make_job(resolved, device, None)
        pool = RayPool(RayHead(), job, share, limits, run.start_timeout, run.shard_timeout, cluster_is_own())
        try:
            if cluster_is_own():
                pool.begin_to_load(PLACE_SECONDS)  # orders may be late to come
            yield pool
        finally:
            pool.close()


def restore_shards(
    pool: Pool,
    shards: Sequence[Shard],
    on_done: Callable[[Record], None],
    stop: threading.Event | None = None,
    any_rejects: bool = False,
    later: int = 0,
) -> None:
    """Runs the dispatcher until all shards are done or `stop` is set. BfrError if some could not be done, or if nearly
    all rows of the first ones are rejected, unless `any_rejects` says that this is wanted. `later`: how many shards the
    pool will be given afterwards.

    The dispatcher runs in a thread of its own: Python handles signals in the main thread, which must not be blocked
    inside Ray when one comes.
    """
    dispatch = Dispatch(pool, on_done, any_rejects=any_rejects, begun=[order for its, order in _begun if its is pool])
    _begun.clear()
    failure: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            dispatch.run(shards, later)
        except BaseException as error:  # raised again in the main thread
            failure.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name=DISPATCHER, daemon=True)
    thread.start()
    try:
        while not ended.wait(WAIT_SECONDS):
            pool.check()
            if stop is not None and stop.is_set():
                break
    finally:
        dispatch.stop.set()
        thread.join(STOP_SECONDS)
    if failure and isinstance(failure[0], Exception) and not isinstance(failure[0], BfrError):
        raise BfrError(
            f"the dispatcher stopped: {type(failure[0]).__name__}: {failure[0]}; finished shards are kept; "
            "run the same command again to continue"
        ) from failure[0]
    if failure:
        raise failure[0]
    if dispatch.set_aside:
        shard, error = dispatch.set_aside[0].order.shard, dispatch.set_aside[0].error
        raise BfrError(
            f"{len(dispatch.set_aside)} of {len(shards)} shards could not be done, the first {shard.id} (rows "
            f"{shard.first_row} to {shard.first_row + shard.rows - 1} of {shard.source}): {type(error).__name__}: "
            f"{error}; finished shards are kept; run the same command again to retry the rest"
        )
