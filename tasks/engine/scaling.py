"""How many workers a run has, by what its cluster offers and what is left to do. The pool carries it out.

    room     as many as the nodes hold; a run grows when nodes join
    least    waited for even without room: what is pending makes an autoscaler start nodes
    most     never more than these
    left     there is no use in more workers than shards that are left

Twice `left` may stay, though: a shard that takes its worker too long is done again by one that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from bfr_models.errors import UsageError
from tasks.config.restore import RestoreRun

CPU, GPU = "CPU", "GPU"  # Ray's names
_SLACK = 1e-6  # fractions of resources do not add up exactly


@dataclass(frozen=True)
class Node:
    """A node of the cluster; resources by Ray's names."""

    id: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    leaves: bool = False  # its end is announced: a spot machine that is taken away


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node."""

    gpus: float = 0.0
    cpus: float = 1.0
    whole_node: bool = False  # there is one worker per node, whatever it takes

    def fits(self, there: Mapping[str, float]) -> int:
        """How many workers these resources hold."""
        fits = int(there.get(CPU, 0) / self.cpus + _SLACK)
        if self.gpus:
            fits = min(fits, _on_gpus(self.gpus, there.get(GPU, 0)))
        return min(fits, 1) if self.whole_node else fits

    def room(self, nodes: Iterable[Node], taken: Mapping[str, int]) -> int:
        """For how many more workers there is room; `taken`: how many of them are on which node, by its id."""
        staying = [node for node in nodes if not node.leaves]
        if self.whole_node:
            staying = [node for node in staying if not taken.get(node.id)]
        return sum(self.fits(node.free) for node in staying)


@dataclass(frozen=True)
class Limits:
    """Between how many workers a run stays."""

    least: int = 1
    most: int | None = None


def crew_of(run: RestoreRun, nodes: Iterable[Node]) -> tuple[Share, Limits]:
    """What a worker of a run takes, and how many there may be."""
    if run.device != "auto":
        on_gpus = run.device == "cuda"
    elif run.gpus_per_actor is not None:
        on_gpus = run.gpus_per_actor > 0
    else:
        on_gpus = any(node.total.get(GPU) for node in nodes)
    gpus = (run.gpus_per_actor or 1.0) if on_gpus else 0.0
    share = Share(gpus, run.cpus_per_actor or 1.0, whole_node=not (gpus or run.actors or run.cpus_per_actor))
    return share, Limits(run.actors or run.min_actors or 1, run.actors or run.max_actors)


def require_a_place(share: Share, nodes: Collection[Node]) -> None:
    """UsageError if not one worker will ever fit on the nodes of a cluster that no others join."""
    if any(share.fits(node.total) for node in nodes):
        return
    asked = f"{share.gpus:g} GPU and {share.cpus:g} CPU" if share.gpus else f"{share.cpus:g} CPU"
    there = {name: sum(node.total.get(name, 0) for node in nodes) for name in (GPU, CPU)}
    raise UsageError(
        f"expected a machine that has what a worker takes ({asked}), found {there[GPU]:g} GPU and {there[CPU]:g} CPU "
        "on this one; leave out --device, --gpus-per-actor and --cpus-per-actor, or name a cluster in RAY_ADDRESS"
    )


def described(limits: Limits) -> str:
    """How many workers there may be, in words."""
    if limits.least == limits.most:
        return f"{limits.least} worker{'s' if limits.least > 1 else ''}"
    return f"{limits.least} to {limits.most} workers" if limits.most else f"{limits.least} or more workers"


def _on_gpus(each: float, gpus: float) -> int:
    """No worker is on parts of several GPUs."""
    if each >= 1:
        return int(gpus / each + _SLACK)
    whole, part = divmod(gpus + _SLACK, 1)
    return int(whole) * int(1 / each + _SLACK) + int(part / each)


def wanted_workers(limits: Limits, now: int, room: int, left: int) -> int:
    """How many workers there should be. There are `now` of them, and the cluster has `room` for so many in all."""
    offered = max(limits.least, room) if limits.most is None else min(max(limits.least, room), limits.most)
    return min(max(now, min(offered, left)), offered, 2 * left)


def threads_on(node: Node, nodes: Iterable[Node], share: Share, limits: Limits) -> int:
    """The CPU threads of a worker on this node: its CPUs, divided by the workers that it gets at most."""
    workers = max(1, share.fits(node.total))
    if limits.most is not None:
        hosts = sum(share.fits(other.total) > 0 for other in nodes)
        workers = min(workers, ceil(limits.most / max(1, hosts)))
    return max(1, int(node.total.get(CPU, 0) / workers))
