"""Joins or starts a Ray cluster, says what it offers, and ends its processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import ray
from ray._private.state import available_resources_per_node, state

from bfr_models.errors import BfrError, UsageError
from tasks.config.ray_place import require_ray_place
from tasks.engine.ray_token import OPEN_CLUSTER, is_open, prepare_token
from tasks.engine.scaling import Node
from tasks.storage.http_errors import causes

_log = logging.getLogger(__name__)

KILL_TIMEOUT = 2.0  # seconds for Ray to end its actors
SETTINGS = {
    "prestart_worker_first_driver": False,  # one for each CPU: the run asks for those that it needs at once
    "raylet_client_connect_timeout_milliseconds": 10,  # the raylet's object store may listen a moment after it is asked
    "raylet_client_num_connect_attempts": 1000,
}
"""Of a cluster of this process's own. Ray itself tries ten times, a second apart."""
LEAN_VERSION = "2.60."  # of Ray: the one whose insides `tasks.engine.ray_own_head` knows


def connect_ray(environments: bool = False) -> bool:
    """Connects to RAY_ADDRESS or starts a local cluster, which makes runtime environments only if it is told so; False
    if this process is connected already.

    `ray.init` installs a SIGTERM handler of its own. The previous one is put back, because the flow needs the signal to
    end in good order.
    """
    if ray.is_initialized():
        return False
    prepare_token()
    handler = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS")
    require_ray_place()
    try:
        _init(address, environments)
    except Exception as error:  # a bare one too: of a machine that is too busy
        raise _cannot_connect(address, error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    ray._private.worker.print_to_stdstream = _log_what_nodes_report
    return True


def _init(address: str | None, environments: bool) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        with _native_lines_dropped():
            ray.init(address=address, **quiet)
        return
    with _own_head(environments):
        # A small object store: images go through storage, only orders and records through Ray.
        ray.init("local", include_dashboard=False, object_store_memory=256 * 2**20, _system_config=SETTINGS, **quiet)


def _own_head(environments: bool) -> AbstractContextManager[None]:
    """A cluster of what the run needs alone; of another version of Ray, Ray's own, which takes two seconds longer."""
    if not ray.__version__.startswith(LEAN_VERSION):
        return nullcontext()
    from tasks.engine.ray_own_head import own_head  # imports what other versions may not have

    # The user's settings by which Ray gives every job an environment.
    asked = os.environ.get("RAY_RUNTIME_ENV_HOOK") or os.environ.get("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0") != "0"
    return own_head(environments or bool(asked))


@contextmanager
def _native_lines_dropped() -> Iterator[None]:
    """While Ray tries to join a cluster, its native code warns once a second; the error at the end says as much."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _cannot_connect(address: str | None, error: Exception) -> BfrError:
    """What to do, and Ray's reason: that of the first cause, of whose traceback the last line tells it."""
    reason = str([*causes(error)][-1]).strip()
    reason = reason.splitlines()[-1] if "Traceback" in reason else " ".join(reason.split())
    reason = reason.partition(" Ensure ")[0][:300]  # Ray's advice follows
    if not address:
        return BfrError(
            f"expected Ray to start on this machine, found: {reason}; Ray's logs are in "
            f"{os.environ.get('RAY_TMPDIR') or tempfile.gettempdir()}/ray/session_latest/logs; `--engine local` does "
            "without Ray"
        )
    return UsageError(
        f"expected to join the Ray cluster at RAY_ADDRESS={address}, found: {reason}; if it asks for a token, this "
        "machine needs the same one (in ~/.ray/auth_token, mode 600, or RAY_AUTH_TOKEN) and RAY_AUTH_MODE=token; both "
        f"must run the same Ray (here {ray.__version__})"
    )


def _log_what_nodes_report(found: dict[str, Any], *_: object, **__: object) -> None:
    """In place of Ray's function, which prints it to standard output, where results go: a node that dies reports itself
    with 20 lines of its log."""
    _log.info("Ray: %s", "\n".join(map(str, found["lines"])).strip().partition("\n")[0])


def warn_if_open() -> None:
    """Says so on standard error if the connected cluster takes callers without a token."""
    given = os.environ.get("RAY_ADDRESS", "")
    address = given if given.startswith("ray://") else ray.get_runtime_context().gcs_address
    if is_open(address):
        print(f"warning: {OPEN_CLUSTER.format(address=address)}", file=sys.stderr, flush=True)


def cluster_nodes() -> list[Node]:
    """The nodes of the connected cluster, with what is free on each. By a `ray://` address it is not known what others
    use, nor which nodes leave."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    if ray.util.client.ray.is_connected():
        return [Node(name, total, total) for name, total in alive.items()]
    free, leaving = available_resources_per_node(), state.get_draining_nodes()
    return [Node(name, total, free.get(name, {}), name in leaving) for name, total in alive.items()]


def end_processes(pids: Iterable[int]) -> None:
    """Kills the actors that survive `ray.kill`.

    A cluster that this process started does not carry it out after a SIGTERM to the whole process group, which is what
    Prefect's workers send. Processes that end by themselves within `KILL_TIMEOUT` are left alone: Ray reports one that
    is killed while it exits as lost.
    """
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
