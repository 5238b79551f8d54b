"""Ray of a run's own: which processes it starts, and what is said if it does not start."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from bfr_models.errors import BfrError
from tasks.engine.ray_cluster import connect_ray
from tests.support import ROOT

PROCESSES = """
from tasks.config.environment import prepare_environment
prepare_environment()
import ray
from tasks.engine.ray_cluster import connect_ray
connect_ray()
print(*sorted(ray._private.worker._global_node.all_processes))
print(ray.get(ray.remote(lambda: "a worker").remote()))
ray.shutdown()
"""


def test_ray_of_ones_own_is_what_runs_workers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray by itself starts a dashboard, an autoscaler and a log monitor as well, whatever it is told."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [sys.executable, "-c", PROCESSES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines() == ["gcs_server raylet", "a worker"], done.stderr


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
