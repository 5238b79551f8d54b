"""Generations of one source, and ways to look at them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import resolve_run
from tasks.generations import (
    list_generations,
)
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.pointer import POINTER, address
from tests import support

Ask = Callable[..., ReprocessRun]


def current(run: ReprocessRun) -> str | None:
    return json.loads(Path(run.destination, POINTER).read_text())["generation"]


def folder(run: ReprocessRun, name: str) -> Path:
    return Path(run.destination, "generations", name)


def interrupted(run: ReprocessRun, name: str, shards: int) -> None:
    """Leaves a generation as a run does that was killed after committing that many shards."""
    inner = run.generation(address(run.destination, name))
    with worker_pool(resolve_run(inner)) as pool:
        restore_shards(pool, list(support.plan_run(inner).todo)[:shards], lambda record: None)


def alive(run: ReprocessRun) -> list[str]:
    return [row["name"] for row in list_generations(run.destination)]
