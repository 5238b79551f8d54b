"""What the workers of a run wait for until they are ready, in words."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.engine.scaling import CPU, GPU, Share


def waiting_for(share: Share, workers: int, placed: int, ready: int, resources: Mapping[str, float]) -> str:
    """Which workers are missing, and why. `resources` are those of the cluster, by Ray's names."""
    if placed == workers:
        return f"{workers} of {workers} workers placed, {ready} ready: waiting for {workers - ready} to load the method"
    kind, each = (GPU, share.gpus) if share.gpus else (CPU, share.cpus)
    needed, there = f"{each:g} {kind}{'s' if each > 1 else ''}", f"{resources.get(kind, 0):g}"
    what = "" if workers - placed == 1 else f" for each of {workers - placed} workers"
    return f"{placed} of {workers} workers placed: waiting for {needed}{what}; the cluster has {there}"
