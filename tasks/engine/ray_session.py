"""One Ray cluster for all that a command does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.config.environment import prepare_environment, ray_is_elsewhere
from tasks.storage.waits import say

_joined: list[bool] = []  # one entry within `joined_ray`


def cluster_is_own() -> bool:
    """Within `joined_ray`: whether the cluster is this process's own."""
    return _joined[0]


@contextmanager
def joined_ray(environments: bool = False) -> Iterator[None]:
    """Joins the cluster that the environment names, or starts one that ends with the block. Around several runs, it is
    theirs together. `environments`: whether one that it starts makes runtime environments, as Ray Train asks for."""
    if _joined:
        yield
        return
    prepare_environment()
    from tasks.engine.ray_cluster import connect_ray
    from tasks.engine.ray_head import RayHead

    say(f"joining Ray at {os.environ['RAY_ADDRESS']}" if ray_is_elsewhere() else "starting Ray")
    connected_here, head = connect_ray(environments), RayHead()
    _joined.append(connected_here and not ray_is_elsewhere())
    try:
        yield
    finally:
        _joined.clear()
        if connected_here:
            head.leave()
