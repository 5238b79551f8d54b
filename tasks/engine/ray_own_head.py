"""The head of a Ray cluster for one command: Ray has no settings for what is left out here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import ray._private.node
import ray._private.services
import ray._private.utils
from ray._raylet import (  # type: ignore[attr-defined]  # not in its .pyi
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    METRICS_AGENT_PORT_NAME,
    METRICS_EXPORT_PORT_NAME,
    RUNTIME_ENV_AGENT_PORT_NAME,
    persist_port,
)

KNOWN_SECONDS = 5.0  # for the raylet to be known; Ray waits longer
NO_PORT = -1
IDLE = 'sh -c "exec cat"'  # does nothing until its standard input is closed, whatever arguments Ray appends

Agents = Mapping[str, Sequence[str]]
"""Agents of a raylet: its flag for their command -> the names of the ports that it waits for."""

DASHBOARD: Agents = {
    "--dashboard_agent_command": (METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME, DASHBOARD_AGENT_LISTEN_PORT_NAME)
}
ENVIRONMENTS: Agents = {"--runtime_env_agent_command": (RUNTIME_ENV_AGENT_PORT_NAME,)}


class OwnHead(ray._private.node.Node):  # type: ignore[misc]  # untyped
    """Without those of its processes that nobody here asks: the dashboard's, which Ray starts even if there is to be
    none, and waits for; the autoscaler's; that of logs for the driver; the agents, which take a second of a CPU before
    the first worker can start."""

    left_out: ClassVar[Agents] = {**DASHBOARD, **ENVIRONMENTS}

    def start_api_server(self, **_: object) -> None:
        pass

    def start_monitor(self) -> None:
        pass

    def start_log_monitor(self) -> None:
        pass

    def start_raylet(self, *arguments: Any, **named: Any) -> None:
        """Without a process for each agent, or once one ends, a raylet ends itself: it gets idle ones."""
        start = ray._private.services.start_ray_process

        def start_with_idle_agents(command: Sequence[str], *rest: Any, **more: Any) -> Any:
            flags = [argument.partition("=")[0] for argument in command]
            idle = {flag: f"{flag}={IDLE}" for flag in self.left_out}
            return start([idle.get(*pair) for pair in zip(flags, command, strict=True)], *rest, **more)

        for name in (name for names in self.left_out.values() for name in names):
            persist_port(self._session_dir, self._node_id, name, NO_PORT)
        with (
            _replaced(ray._private.services, "start_ray_process", start_with_idle_agents),
            # Imports what the dashboard needs, 0.2 s, for a flag of the agent that is left out.
            _replaced(ray._private.utils, "get_dashboard_dependency_error", lambda: None),
        ):
            super().start_raylet(*arguments, **named)

    def start_ray_processes(self) -> None:
        """Returns once the raylet is known: Ray itself looks after 0.1 s, and then once a second."""
        super().start_ray_processes()
        until = time.monotonic() + KNOWN_SECONDS
        while not self.get_gcs_client().get_all_node_info(timeout=KNOWN_SECONDS) and time.monotonic() < until:
            time.sleep(0.01)


class OwnHeadWithEnvironments(OwnHead):
    """With the agent that makes runtime environments."""

    left_out: ClassVar[Agents] = DASHBOARD


@contextmanager
def own_head(environments: bool) -> Iterator[None]:
    """What Ray starts in the block has such a head."""
    with _replaced(ray._private.node, "Node", OwnHeadWithEnvironments if environments else OwnHead):
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
