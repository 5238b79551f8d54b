"""Spot termination notices, from servers that answer as the clouds' do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bfr_models.errors import UsageError
from tasks.engine import spot_notice
from tasks.engine.spot_notice import watch_for_notice
from tests.metadata_server import ACTION, Metadata, metadata_server


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.setattr(spot_notice, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which it must not ask
    with metadata_server() as metadata:
        for name, value in metadata.environment.items():
            monkeypatch.setenv(name, value)
        yield metadata


@pytest.fixture
def heard() -> Iterator[threading.Event]:
    """Set when this process gets SIGTERM."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    yield event
    signal.signal(signal.SIGTERM, before)


def asked(metadata: Metadata, times: int) -> None:
    """Waits until the server has answered this many more requests."""
    enough, deadline = metadata.answers + times, time.monotonic() + 60
    while metadata.answers < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("cloud", "words"), [("aws", ACTION), ("gcp", "preempted")])
def test_a_notice_is_heard_as_sigterm_once_it_comes_and_trouble_is_said_once(
    cloud: str,
    words: str,
    metadata: Metadata,
    heard: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BFR_SPOT", cloud)
    metadata.ill = True
    watch_for_notice(os.getpid())
    asked(metadata, 3)
    metadata.ill = False
    asked(metadata, 3)
    assert not heard.is_set()
    metadata.taken = True
    assert heard.wait(60)
    errors = capfd.readouterr().err
    assert errors.count(f"BFR_SPOT={cloud}: no answer") == 1 and "503" in errors
    assert f"this machine is about to be taken away: {words}" in errors


def test_nobody_is_asked_unless_told_so(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BFR_SPOT", raising=False)
    before = set(threading.enumerate())
    watch_for_notice(os.getpid())
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "spot notice"]
    monkeypatch.setenv("BFR_SPOT", "ec2")
    with pytest.raises(UsageError, match="expected aws or gcp in BFR_SPOT, found 'ec2'"):
        watch_for_notice(os.getpid())
