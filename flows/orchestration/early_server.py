"""Starts Prefect's embedded server before Prefect is imported: it takes seconds to be up, in which the run imports what
it needs. It is known without Prefect that one is needed where nothing in sight could name an API.

Imports nothing of Prefect, as `late_server.py` does, which starts the server where this has not.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.storage.redaction import redact

API = "PREFECT_API_URL"
_NAMES_AN_API = (API, "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5.0  # as Prefect waits
_LISTENER_SECONDS = 5.0  # for a server that is being started again, or a network that is slow
_MARK = "BFR_EMBEDDED_API"  # in the environment: the URL of this process's own server


class NoApiError(Exception):
    """Prefect's API does not answer."""


def start_server() -> bool:
    """Starts the server, if one is needed, and goes on: `await_server` waits until it answers. Whether it did."""
    if "prefect" in sys.modules or any(os.environ.get(name) for name in _NAMES_AN_API) or _files_name_one():
        return False
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(  # noqa: S603
        command(port),
        env={**os.environ, **EPHEMERAL},
        stdin=subprocess.PIPE,  # held open for as long as this process lives
        start_new_session=True,
    )
    os.environ[API] = os.environ[_MARK] = f"http://127.0.0.1:{port}/api"
    _started.append(server)
    atexit.register(_stop, server)
    return True


def is_embedded(url: str) -> bool:
    """Whether an API is the server of this process alone."""
    return url == os.environ.get(_MARK)


def await_server() -> None:
    """Returns once Prefect's API answers: the server that was started here, in Prefect's own time, or one that the
    environment names, which is up already. NoApiError if it does not."""
    if not _started and (named := os.environ.get(API)):
        _require_listener(named)
    for server in _started:
        deadline = time.monotonic() + float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
        while not _answers(os.environ[_MARK]):
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoApiError(f"expected Prefect's embedded server to answer, found none ({server.poll()})")
            time.sleep(_POLL_SECONDS)


EPHEMERAL = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # A server with a UI registers the types of blocks; noting here that it is done would keep it from that.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "0",
    "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",  # checks of types in a library of its own
}
"""What Prefect sets for a server of one process, and what that one can do without."""
_started: list[subprocess.Popen[Any]] = []


def command(port: int) -> list[str]:
    """The command of an embedded server."""
    return [sys.executable, "-m", "flows.orchestration.embedded_server", str(port)]


def _files_name_one() -> bool:
    """Whether a file may name an API: those that Prefect reads beside the environment."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    if any(path.exists() for path in (home / "profiles.toml", Path(".env"), Path("prefect.toml"))):
        return True
    with suppress(OSError, UnicodeDecodeError):
        return "[tool.prefect" in Path("pyproject.toml").read_text(encoding="utf-8")
    return False


def _require_listener(api: str) -> None:
    """NoApiError if nothing takes connections there: Prefect itself would try for a minute."""
    parts = urlsplit(api)
    host, port, deadline = parts.hostname, parts.port, time.monotonic() + _LISTENER_SECONDS
    port = port or (443 if parts.scheme == "https" else 80)
    while host is not None:
        try:
            socket.create_connection((host, port), _LISTENER_SECONDS).close()
            return
        except OSError as error:
            if _through_a_proxy(parts.scheme, host):
                return  # only the proxy may reach it
            if time.monotonic() > deadline:
                raise NoApiError(f"nothing answers at {API}={redact(api)}: {error}") from None
        time.sleep(1.0)


def _through_a_proxy(scheme: str, host: str) -> bool:
    return bool(urllib.request.getproxies().get(scheme)) and not urllib.request.proxy_bypass(host)


def _answers(api: str) -> bool:
    try:
        with _direct.open(f"{api}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine


def _stop(server: subprocess.Popen[Any]) -> None:
    assert server.stdin is not None
    server.stdin.close()  # the one thing that it heeds
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
