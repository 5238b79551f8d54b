"""Whose failure it was: Prefect's, in which case the run goes on without it, or another's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from bfr_models.errors import BfrError
from flows.orchestration import early_server, interruption
from flows.orchestration.interruption import interruptible
from flows.orchestration.phases import with_fallback
from tasks.storage.store import Store

pytestmark = pytest.mark.usefixtures("signals", "prefect_server")


@pytest.fixture
def ask_prefect() -> Callable[[], Any]:
    """A question to a server that is not there."""

    def ask() -> Any:
        gone = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(gone), get_client(sync_client=True) as client:
            return client.read_flow_run(uuid4())

    return ask


def test_a_failure_of_prefect_is_said_and_the_run_goes_on(
    ask_prefect: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert with_fallback(ask_prefect, lambda: "done") == "done"
    assert "Prefect failed (ConnectError" in caplog.text


def test_an_api_that_is_dead_is_known_in_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(early_server, "_LISTENER_SECONDS", 0.1)
    assert with_fallback(lambda: pytest.fail("Prefect was asked"), lambda: "done") == "done"
    assert "nothing answers at PREFECT_API_URL=http://127.0.0.1:9/api" in caplog.text


@pytest.mark.parametrize("ours", [True, False])
def test_heartbeats_are_sent_to_a_server_that_outlives_the_run(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere they only delay its end."""
    monkeypatch.setenv(early_server._MARK, str(get_current_settings().api.url) if ours else "")
    every = with_fallback(lambda: get_current_settings().flows.heartbeat_frequency, lambda: pytest.fail("it was asked"))
    assert (every is None) == ours


def test_a_server_that_starts_late_gets_no_heartbeats_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.orchestration.phases.embed_server", lambda: None)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert get_current_settings().api.url is None
        assert with_fallback(lambda: get_current_settings().flows.heartbeat_frequency, lambda: 0.0) is None


def test_a_failure_of_what_the_project_called_is_not_prefects(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Any:
        return Store("/nowhere").read("x")

    with pytest.raises(FileNotFoundError):
        with_fallback(fail, lambda: "done")
    assert not capsys.readouterr().err


def test_an_error_of_ours_is_itself() -> None:
    def fail() -> Any:
        raise BfrError("wrong")

    with pytest.raises(BfrError, match="wrong"):
        with_fallback(fail, lambda: "done")


@pytest.mark.parametrize("seconds_later", [0.0, 0.3])
def test_a_server_that_the_same_signal_ended_first_is_no_failure(
    seconds_later: float, ask_prefect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd does it: the signal goes to all of a service's processes."""
    monkeypatch.setattr(interruption, "HEED_SECONDS", 60.0)  # on a busy machine it may come later than that

    def end() -> Any:
        here = threading.main_thread().ident
        threading.Timer(seconds_later, signal.pthread_kill, [here, signal.SIGTERM]).start()
        return ask_prefect()

    with pytest.raises(KeyboardInterrupt), interruptible():
        with_fallback(end, lambda: "done")
