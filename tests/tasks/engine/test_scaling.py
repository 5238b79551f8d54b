"""How many workers a run has: closed cases."""

from __future__ import annotations

from typing import Any

import pytest

from bfr_models.errors import UsageError
from tasks.config.restore import RestoreRun
from tasks.engine.scaling import (
    Limits,
    Node,
    Share,
    crew_of,
    described,
    require_a_place,
    threads_on,
    wanted_workers,
)


def node(name: str, cpus: float, gpus: float = 0, free: dict[str, float] | None = None, leaves: bool = False) -> Node:
    total = {"CPU": cpus, "GPU": gpus}
    return Node(name, total, total if free is None else free, leaves)


def asked(**settings: Any) -> RestoreRun:
    return RestoreRun(source="/in", destination="/out", method="passthrough", **settings)


@pytest.mark.parametrize(
    ("limits", "now", "room", "left", "wanted"),
    [
        (Limits(), 0, 0, 100, 1),  # nothing there yet: one is asked for
        (Limits(), 1, 8, 100, 8),  # nodes have joined
        (Limits(most=5), 1, 8, 100, 5),
        (Limits(least=3), 0, 0, 100, 3),  # pending ones make an autoscaler start nodes
        (Limits(least=3), 0, 0, 2, 2),  # but none that nothing is left for
        (Limits(), 8, 6, 100, 6),  # two nodes leave, or those that were pending got no room
        (Limits(), 8, 8, 3, 6),  # a short queue: a worker each, and another to do it again
        (Limits(), 2, 8, 3, 3),
        (Limits(), 4, 8, 3, 4),
        (Limits(), 2, 8, 1, 2),
        (Limits(4, 4), 0, 1, 100, 4),  # --actors 4
        (Limits(4, 4), 4, 16, 100, 4),
        (Limits(4, 4), 4, 16, 1, 2),
        (Limits(), 1, 1, 0, 0),
    ],
)
def test_how_many_workers_there_should_be(limits: Limits, now: int, room: int, left: int, wanted: int) -> None:
    assert wanted_workers(limits, now, room, left) == wanted


def test_the_number_settles() -> None:
    """Asked again with what it wanted, it wants the same, whatever the numbers."""
    for limits in (Limits(), Limits(3), Limits(2, 6), Limits(5, 5)):
        for now in range(10):
            for room in range(10):
                for left in range(10):
                    wanted = wanted_workers(limits, now, room, left)
                    assert wanted_workers(limits, wanted, room, left) == wanted
                    assert wanted <= min(limits.most or 10, 2 * left)


@pytest.mark.parametrize(
    ("share", "there", "fits"),
    [
        (Share(gpus=1), {"CPU": 16.0, "GPU": 4.0}, 4),
        (Share(gpus=1), {"CPU": 2.0, "GPU": 4.0}, 2),
        (Share(gpus=2), {"CPU": 16.0, "GPU": 7.0}, 3),
        (Share(gpus=0.5), {"CPU": 16.0, "GPU": 2.0}, 4),
        (Share(gpus=0.4), {"CPU": 16.0, "GPU": 2.0}, 4),  # two on each GPU, not five on both
        (Share(gpus=0.4), {"CPU": 16.0, "GPU": 1.6}, 3),
        (Share(gpus=0.1), {"CPU": 16.0, "GPU": 1.0}, 10),
        (Share(gpus=1), {"CPU": 16.0}, 0),
        (Share(cpus=4), {"CPU": 15.0}, 3),
        (Share(whole_node=True), {"CPU": 15.0}, 1),
        (Share(whole_node=True), {"CPU": 0.5}, 0),
        (Share(gpus=1, cpus=6), {"CPU": 16.0, "GPU": 4.0}, 2),
    ],
)
def test_how_many_workers_a_node_holds(share: Share, there: dict[str, float], fits: int) -> None:
    assert share.fits(there) == fits


def test_room_is_what_is_free_on_nodes_that_stay() -> None:
    nodes = [node("a", 8, 4, {"CPU": 6.0, "GPU": 2.0}), node("b", 8, 4, leaves=True), node("c", 8), node("d", 8, 1)]
    assert Share(gpus=1).room(nodes, {"a": 2}) == 3
    assert Share(cpus=2).room(nodes, {}) == 3 + 4 + 4


def test_a_node_has_one_worker_if_that_takes_it_whole() -> None:
    nodes = [node("a", 8, free={"CPU": 7.0}), node("b", 64), node("c", 2, leaves=True)]
    assert Share(whole_node=True).room(nodes, {"a": 1}) == 1


@pytest.mark.parametrize(
    ("settings", "gpus", "share", "limits"),
    [
        ({}, 0, Share(whole_node=True), Limits()),
        ({}, 2, Share(1), Limits()),
        ({"device": "cuda"}, 0, Share(1), Limits()),
        ({"device": "cuda", "min_actors": 2, "max_actors": 9}, 0, Share(1), Limits(2, 9)),
        ({"device": "cpu"}, 2, Share(whole_node=True), Limits()),
        ({"device": "cpu", "cpus_per_actor": 4}, 2, Share(0, 4), Limits()),
        ({"actors": 3}, 0, Share(), Limits(3, 3)),
        ({"actors": 3, "gpus_per_actor": 0.5}, 0, Share(0.5), Limits(3, 3)),
        ({"gpus_per_actor": 0}, 2, Share(whole_node=True), Limits()),
        ({"max_actors": 3}, 0, Share(whole_node=True), Limits(1, 3)),
    ],
)
def test_what_a_run_asks_for(settings: dict[str, Any], gpus: float, share: Share, limits: Limits) -> None:
    assert crew_of(asked(**settings), [node("a", 8, gpus)]) == (share, limits)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"actors": 2, "max_actors": 3}, "expected --actors, or --min-actors and --max-actors, found both"),
        ({"min_actors": 4, "max_actors": 3}, "expected --min-actors up to --max-actors 3, found 4"),
        ({"device": "cpu", "gpus_per_actor": 1}, "expected --gpus-per-actor that fits --device cpu, found 1"),
        ({"device": "cuda", "gpus_per_actor": 0}, "expected --gpus-per-actor that fits --device cuda, found 0"),
    ],
)
def test_workers_that_cannot_be(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        asked(**settings)


@pytest.mark.parametrize(
    ("share", "asked"),
    [(Share(1), "1 GPU and 1 CPU"), (Share(0.5, 2), "0.5 GPU and 2 CPU"), (Share(cpus=9), "9 CPU")],
)
def test_a_worker_for_which_no_machine_will_come_is_not_waited_for(share: Share, asked: str) -> None:
    with pytest.raises(UsageError, match=rf"\({asked}\), found 0 GPU and 8 CPU on this one; leave out --device"):
        require_a_place(share, [node("a", 8)])
    require_a_place(share, [node("a", 8), node("b", 16, gpus=1)])


@pytest.mark.parametrize(
    ("share", "limits", "threads"),
    [
        (Share(whole_node=True), Limits(), {"small": 4, "large": 64}),
        (Share(cpus=4), Limits(), {"small": 4, "large": 4}),
        (Share(cpus=3), Limits(), {"small": 4, "large": 3}),
        (Share(), Limits(4, 4), {"small": 2, "large": 32}),  # two on each of two nodes
        (Share(), Limits(1, 1), {"small": 4, "large": 64}),
        (Share(gpus=1), Limits(), {"small": 2, "large": 8}),
    ],
)
def test_threads_are_those_of_the_node(share: Share, limits: Limits, threads: dict[str, int]) -> None:
    nodes = [node("small", 4, 2), node("large", 64, 8), node("head", 0)]
    assert {each.id: threads_on(each, nodes, share, limits) for each in nodes[:2]} == threads


def test_a_run_says_how_many_workers_there_may_be() -> None:
    assert [described(Limits(*each)) for each in ((1, 1), (3, 3), (1, 8), (2, None))] == [
        "1 worker", "3 workers", "1 to 8 workers", "2 or more workers",
    ]  # fmt: skip
