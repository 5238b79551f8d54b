"""A head that no longer answers, which Ray itself would end the process for."""

from __future__ import annotations

import socket

import pytest

from bfr_models.errors import BfrError
from tasks.engine import ray_head
from tasks.engine.ray_head import RayHead
from tasks.storage import waits


def test_a_head_that_is_gone_is_waited_for_said_and_then_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_head, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(waits, "LINE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        head = RayHead()
        head.check()
        assert head.answers()
    assert not head.answers()
    head.check()
    lines = [record.message for record in caplog.records if record.name == waits.LOGGER]
    assert lines[0].startswith(f"waiting for the Ray cluster's head at {address} (no answer for ")
    monkeypatch.setattr(ray_head, "LOST_SECONDS", 0.0)
    with pytest.raises(BfrError, match=f"expected an answer of the Ray cluster's head at {address}, found none for"):
        head.check()
