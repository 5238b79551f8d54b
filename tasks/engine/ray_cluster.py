"""A Ray cluster: joined or started, and what it offers."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import ray

from bfr_models.errors import UsageError

CONNECT_TIMEOUT = 5.0  # seconds; Ray itself tries for many minutes, deaf to signals


# Three times the workers, if that is more: a node that goes takes all its actors with it
KILL_TIMEOUT = 2.0  # seconds for Ray to end its actors


def connect_ray() -> bool:
    """Connects to RAY_ADDRESS or starts a local cluster; True if it was started or joined here.

    Ray takes SIGTERM over when it starts; it is given back, so that whoever runs the flow hears it.
    """
    if ray.is_initialized():
        return False
    handler = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address := os.environ.get("RAY_ADDRESS"):
        _require_answer(address)
        ray.init(address=address, **quiet)
    else:  # nothing big goes through the object store
        ray.init("local", include_dashboard=False, object_store_memory=256 * 2**20, **quiet)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    return True


def _require_answer(address: str) -> None:
    """UsageError if nothing listens at a `host:port` or `ray://host:port`."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    if not parts.hostname or not parts.port:
        return  # "auto", "local"
    try:
        socket.create_connection((parts.hostname, parts.port), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise UsageError(
            f"expected a Ray cluster at RAY_ADDRESS={address}, found nothing that answers ({error}); start it, or "
            "unset RAY_ADDRESS to use this machine"
        ) from None


def cluster_gpus() -> int:
    """GPUs that the connected cluster offers."""
    return int(ray.cluster_resources().get("GPU", 0))


def end_processes(pids: Iterable[int]) -> None:
    """Kills what `ray.kill` did not: a SIGTERM for the whole process group, as Prefect's workers send it, makes a
    cluster of ours deaf to that. A process that is on its way out is left to Ray, which would report it as lost."""
    left, deadline = set(pids), time.monotonic() + KILL_TIMEOUT
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if _lives(pid)}
        time.sleep(0.05)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
