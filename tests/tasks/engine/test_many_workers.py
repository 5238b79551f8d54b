"""The dispatcher with many workers, on a simulated clock."""

from __future__ import annotations

import pytest

from tests.tasks.engine.fake_pool import shard
from tests.tasks.engine.simulated_cluster import Conditions, simulated


def ideal(count: int, conditions: Conditions) -> float:
    return count * conditions.shard / (conditions.nodes * conditions.per_node)


def test_every_shard_is_done_once_whatever_dies() -> None:
    conditions = Conditions(nodes=4, worker_lives=1200, node_lives=3600, poison={"7": {3}, "99": {0, 9}})
    cluster, dispatch, order = simulated([shard(number) for number in range(400)], conditions)
    assert sorted(order, key=int) == [str(number) for number in range(400)] and not dispatch.set_aside
    assert cluster.deaths > 20


def test_workers_that_die_now_and_then_cost_little_time() -> None:
    conditions = Conditions(nodes=4, worker_lives=2 * 3600)
    cluster, _, _ = simulated([shard(number) for number in range(1600)], conditions)
    assert cluster.deaths > 3
    assert cluster.now < 1.15 * ideal(1600, conditions)


def test_suspects_are_tried_side_by_side() -> None:
    """All shards in hand of sixteen workers lose them at once: that costs about the time of two shards, not of 32."""
    conditions = Conditions(nodes=2, worker_lives=1e9)
    undisturbed, _, _ = simulated([shard(number) for number in range(64)], conditions)
    cluster, _, order = simulated([shard(number) for number in range(64)], Conditions(nodes=2, worker_lives=2000))
    assert len(order) == 64
    assert cluster.now < undisturbed.now + 8 * conditions.shard


def test_what_a_slow_worker_has_in_hand_at_the_end_is_done_by_others() -> None:
    conditions = Conditions(nodes=2, slow={1: 20.0})
    cluster, _, order = simulated([shard(number) for number in range(200)], conditions)
    assert sorted(order, key=int) == [str(number) for number in range(200)]
    assert cluster.now < 200 * conditions.shard / conditions.per_node + 6 * conditions.shard  # else 2400 s more
    assert cluster.orders > 200


def test_nothing_is_done_twice_where_all_workers_are_alike() -> None:
    cluster, _, _ = simulated([shard(number) for number in range(160)], Conditions(nodes=2))
    assert cluster.orders == 160


@pytest.mark.parametrize(("count", "most"), [(3, 3), (100, 16)])
def test_there_are_no_more_workers_than_shards(count: int, most: int) -> None:
    cluster, _, order = simulated([shard(number) for number in range(count)], Conditions(nodes=2))
    assert cluster.most == most and len(order) == count
    assert len(cluster._crew) <= 2
