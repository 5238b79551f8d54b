"""Ray does not start: what is said then."""

from __future__ import annotations

from typing import Any

import pytest

from bfr_models.errors import BfrError
from tasks.engine.ray_cluster import connect_ray


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
