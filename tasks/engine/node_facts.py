"""What each node of a Ray cluster has and reaches, asked in a process of that node (`bfr doctor --cluster`)."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bfr_models.device import multiplies_bf16
from bfr_models.errors import BfrError
from bfr_models.weights.files import ASSETS, cache_folder, read_card
from tasks.config.code import running_code
from tasks.engine.ray_cluster import connect_ray
from tasks.engine.same_code import lacks_package
from tasks.storage.redaction import redact_text
from tasks.storage.retry import retry_deadline
from tasks.storage.store import Store

ANSWER_SECONDS = 60.0  # for all nodes together: a process has to start on each
STORE_SECONDS = 20.0
PINGS = 5
SIGN = "driver"  # what the asking process leaves in the store, for the nodes to find

Facts = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """A node that is alive, and what a process on it says; `silent` says why it says nothing."""

    id: str
    host: str
    address: str
    cpus: float
    gpus: float
    facts: Facts = field(default_factory=dict)
    skew: tuple[float, float] = (0.0, 0.0)
    """Its clock minus this machine's, and how far off that may be; seconds."""
    silent: str = ""


def ask_nodes(store: str | None, prefect: str | None) -> list[Node]:
    """Every node of the cluster at RAY_ADDRESS, whose processes read and write below the URL `store` and ask Prefect's
    API at the URL `prefect`, where these are given. UsageError without a cluster; storage errors of this machine."""
    here = connect_ray()
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        with _signed(store) as place:
            return _answers(alive, place, prefect)
    finally:
        if here:
            ray.shutdown()


def facts_here(place: str | None = None, prefect: str | None = None) -> Facts:
    """What this process sees of its machine. `place` is a folder in which the asking process has left its sign."""
    return {
        "code": running_code(),
        "weights": known_weights(),
        "torch": importlib.metadata.version("torch"),
        "gpus": _gpus(),
        "cores": os.cpu_count() or 1,
        "bf16": multiplies_bf16(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk": shutil.disk_usage(tempfile.gettempdir()).free,
        "store": _try_store(place) if place else None,
        "prefect": _try_prefect(prefect) if prefect else None,
    }


def known_weights() -> dict[str, str]:
    """The sha256 of each weight file of this machine by its stem, as its card says; none is hashed."""
    found = {}
    for folder in (ASSETS, cache_folder()):
        for card in sorted(folder.glob("[!.]*.json")):
            with suppress(BfrError):
                found[card.stem] = str(read_card(card)["sha256"])
    return found


@ray.remote(num_cpus=0, max_restarts=0)  # so that it runs even where all CPUs are taken
class _Reporter:
    """A process on one node."""

    def facts(self, place: str | None, prefect: str | None) -> Facts:
        return facts_here(place, prefect)

    def clock(self) -> float:
        return time.time()


def _answers(alive: Sequence[Facts], place: str | None, prefect: str | None) -> list[Node]:
    deadline = time.monotonic() + ANSWER_SECONDS
    reporters = []
    for node in alive:
        only_there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        reporter = _Reporter.options(scheduling_strategy=only_there).remote()  # type: ignore[attr-defined]
        reporters.append((reporter, reporter.facts.remote(place, prefect)))
    nodes = []
    for node, (reporter, asked) in zip(alive, reporters, strict=True):
        host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
        offered = node["Resources"]
        about = (node["NodeID"], host, address, offered.get("CPU", 0.0), offered.get("GPU", 0.0))
        try:
            facts = ray.get(asked, timeout=max(0.1, deadline - time.monotonic()))
            nodes.append(Node(*about, facts, _skew(partial(_time_at, reporter))))
        except RayError as error:
            nodes.append(Node(*about, silent=_why(error)))
        ray.kill(reporter)
    return nodes


def _time_at(reporter: Any) -> float:
    return float(ray.get(reporter.clock.remote(), timeout=ANSWER_SECONDS))


def _why(error: RayError) -> str:
    if isinstance(error, GetTimeoutError):
        return f"no answer in {ANSWER_SECONDS:.0f} s"
    if missing := lacks_package(error):
        return str(missing)
    return redact_text(f"its process did not live to answer: {str(error).strip().splitlines()[-1]}")


def _skew(clock: Callable[[], float]) -> tuple[float, float]:
    """How far another clock is ahead, and the bound on the error of that: half of the fastest way there and back."""
    best = (0.0, float("inf"))
    for _ in range(PINGS):
        before = time.time()
        there, after = clock(), time.time()
        best = min(best, (there - (before + after) / 2, (after - before) / 2), key=lambda found: found[1])
    return best


def _gpus() -> list[str]:
    """Name, driver and memory of each, as NVIDIA's driver says; none without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]


@contextmanager
def _signed(store: str | None) -> Iterator[str | None]:
    """A new folder of the store, with a sign that the nodes look for; it is gone afterwards."""
    if store is None:
        yield None
        return
    place = Store(store).sub(f".bfr-doctor-{uuid.uuid4().hex}")
    with retry_deadline(STORE_SECONDS):
        place.write(SIGN, b"1")
    try:
        yield place.url()
    finally:
        with suppress(OSError):
            place.delete(SIGN)


def _try_store(url: str) -> Facts:
    """Which of `read`, `write` and `create` (a put that refuses to replace) go well; `why` tells of a failure."""
    done: Facts = {"read": False, "write": False, "create": False, "why": ""}
    store, mine = Store(url), uuid.uuid4().hex
    try:
        with retry_deadline(STORE_SECONDS):
            done["read"] = store.read(SIGN) == b"1"
            store.write(mine, b"1")
            done["write"] = store.read(mine) == b"1"
            done["create"] = not store.create(mine, b"2")
    except NotImplementedError:
        pass  # a store that knows no conditions
    except Exception as error:
        done["why"] = redact_text(f"{type(error).__name__}: {error}")
    finally:
        with suppress(Exception):
            store.delete(mine)
    return done


def _try_prefect(url: str) -> str:
    """ "" if the API answers, else why not."""
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        return redact_text(f"{type(error).__name__}: {error}")
    return ""
