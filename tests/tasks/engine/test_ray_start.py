"""Ray of a run's own: which processes it starts, and what is said if it does not start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import BfrError
from tasks.engine.ray_cluster import connect_ray
from tests.support import ROOT

START = """
import os, sys
from pathlib import Path
from tasks.config.environment import prepare_environment
prepare_environment()
import ray
from tasks.engine import ray_cluster
if "another version" in sys.argv:
    ray_cluster.LEAN_VERSION = "1.0."
ray_cluster.connect_ray(environments="environments" in sys.argv)
processes = ray._private.worker._global_node.all_processes
raylet = processes["raylet"][0].process.pid
children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
"""
FIRST_STEPS = """
print("ray.dashboard.optional_deps" in sys.modules)
print(Path(ray._private.worker._global_node.get_logs_dir_path(), "raylet.out").read_text())
ray.shutdown()
"""
PROCESSES = """
print(*sorted(processes))
print(*sorted(Path(f"/proc/{child}/comm").read_text().strip() for child in children))
print(ray.get(ray.remote(lambda: "a worker").remote()))
ray.shutdown()
"""
IN_ENVIRONMENT = """
variable = ray.remote(lambda: os.environ["BFR_TEST"]).options(runtime_env={"env_vars": {"BFR_TEST": "its variable"}})
print(ray.get(variable.remote()))
ray.shutdown()
"""
KILLED = """
print(*children, flush=True)
os.kill(raylet, 9)
os._exit(0)
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Starts Ray in a process of its own, which goes on with some code; returns the lines that this prints."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def start(code: str, *arguments: str) -> list[str]:
        command = [sys.executable, "-c", START + code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return start


def test_ray_of_ones_own_is_what_runs_workers_and_no_more(started: Callable[..., list[str]]) -> None:
    """Ray by itself starts a dashboard, an autoscaler and a log monitor as well, whatever it is told, and a raylet two
    agents, in whose places are processes that do nothing."""
    assert started(PROCESSES) == ["gcs_server raylet", "cat cat", "a worker"]


def test_nothing_sleeps_a_second_and_nothing_of_the_dashboard_is_imported(started: Callable[..., list[str]]) -> None:
    """A raylet that asks its own object store a moment too early asks again: Ray by itself a second later, which was
    every other start of a run."""
    imported, *log = started(FIRST_STEPS)
    store, server = (
        datetime.strptime(next(line for line in log if words in line)[1:24], "%Y-%m-%d %H:%M:%S,%f")
        for words in ("Starting object store", "ObjectManager server started")
    )
    assert imported == "False"
    assert server - store < timedelta(seconds=0.9)


def test_another_version_of_ray_starts_in_its_own_way(started: Callable[..., list[str]]) -> None:
    processes, _, result = started(PROCESSES, "another version")
    assert "gcs_server" in processes and "raylet" in processes and "log_monitor" in processes
    assert result == "a worker"


def test_what_is_in_the_agents_places_ends_with_a_raylet_that_is_killed(started: Callable[..., list[str]]) -> None:
    pids, deadline = started(KILLED)[0].split(), time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(pids) == 2


def test_workers_have_environments_of_their_own_where_they_are_asked_for(started: Callable[..., list[str]]) -> None:
    """Ray Train gives each of its workers one."""
    assert started(IN_ENVIRONMENT, "environments") == ["its variable"]


def test_a_machine_that_is_too_busy_for_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/var/tmp")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", late)
    with pytest.raises(
        BfrError, match=r"start on this machine, found: The current node timed out.*--engine local"
    ) as said:
        connect_ray()
    assert "/var/tmp/ray/session_latest/logs" in str(said.value)
