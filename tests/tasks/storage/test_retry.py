"""Which errors are retried, and which are not."""

from __future__ import annotations

import io
import itertools
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import cast

import aiohttp
import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from tasks.storage import retry, waits
from tasks.storage.retry import RetryingFile, is_transient, retry_deadline, with_retries


def answer(status: int, code: str = "", error: OSError | None = None) -> OSError:
    """An answer of S3 as s3fs raises it."""
    error = error or OSError(5, "refused")
    found = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.__cause__ = ClientError(found, "PutObject")  # type: ignore[arg-type]
    return error


def web_answer(status: int) -> aiohttp.ClientResponseError:
    return aiohttp.ClientResponseError(cast(aiohttp.RequestInfo, None), (), status=status)


def because(cause: Exception) -> httpx.ConnectError:
    """The error httpx raises for a connection that was not made."""
    error = httpx.ConnectError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [
    answer(503, "SlowDown"), answer(500), answer(429), answer(400, "RequestTimeout"), TimeoutError(),
    ConnectionResetError(), EOFError(), aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError(),
    EndpointConnectionError(endpoint_url="http://x"), httpx.ReadTimeout(""), httpx.ConnectError("refused"),
    web_answer(503), web_answer(429), httpx.RemoteProtocolError("cut"), because(socket.gaierror(socket.EAI_AGAIN, "")),
], ids=repr)  # fmt: skip
def test_trouble_that_may_pass(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", [
    answer(403, "AccessDenied", PermissionError()), answer(404, "NoSuchBucket", FileNotFoundError()), answer(412),
    answer(409), answer(501), answer(400, "InvalidArgument"), FileExistsError(), NoCredentialsError(), OSError(28, ""),
    ValueError(), web_answer(401), web_answer(403), web_answer(404), web_answer(416),
    aiohttp.InvalidURL("http://host:port"), httpx.UnsupportedProtocol(""),
    because(socket.gaierror(socket.EAI_NONAME, "")),
    because(ssl.SSLCertVerificationError()),
], ids=repr)  # fmt: skip
def test_trouble_that_no_other_try_mends(error: Exception) -> None:
    assert not is_transient(error)


def failing(times: int, error: Exception) -> Callable[[], str]:
    endings = itertools.repeat(error, times)

    def call() -> str:
        for ending in endings:
            raise ending
        return "done"

    return call


def test_a_request_is_repeated_until_it_does_well() -> None:
    assert with_retries(failing(3, answer(503, "SlowDown"))) == "done"


def test_a_refusal_is_raised_at_once() -> None:
    with pytest.raises(PermissionError):  # a second try would do well
        with_retries(failing(1, PermissionError()))


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 0.5)
    began = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        with_retries(failing(10**9, answer(503)))
    assert 0.5 <= time.monotonic() - began < 60


def test_patience_may_be_shorter_for_some_requests_together() -> None:
    began = time.monotonic()
    with retry_deadline(0.5):
        for _ in range(3):
            with pytest.raises(OSError, match="refused"):
                with_retries(failing(10**9, answer(503)))
    assert time.monotonic() - began < 60


class Unsteady(io.BytesIO):
    """Every other read ends early, every third fails."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads % 3 == 0:
            raise ConnectionResetError
        return super().read(max(1, (size or 0) // 2) if self.reads % 2 else size)


def test_a_file_gives_whole_reads_or_none() -> None:
    content = bytes(range(256)) * 4
    file = RetryingFile(Unsteady(content), len(content))
    assert file.read(100) == content[:100]
    file.seek(-50, io.SEEK_END)
    assert file.read() == content[-50:] and file.read(10) == b""
    file.seek(300)
    buffer = bytearray(64)
    assert file.readinto(buffer) == 64 and bytes(buffer) == content[300:364]
    assert file.tell() == 364


@pytest.mark.usefixtures("own_clock")
def test_a_store_that_does_not_answer_is_named_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "_waits", waits.WaitLines())

    def refuse() -> None:
        raise EndpointConnectionError(endpoint_url="http://10.0.0.1/bucket")

    with pytest.raises(EndpointConnectionError), retry_deadline(100):
        with_retries(refuse)
    lines = [record.getMessage() for record in caplog.records if record.name == waits.LOGGER]
    assert 3 <= len(lines) <= 10
    assert re.fullmatch(
        r"waiting for the store \(tried \d+ times in (1\d|20) s, for at most (8\d|90) s more\): "
        r'EndpointConnectionError: Could not connect to the endpoint URL: "http://10.0.0.1/bucket"',
        lines[0],
    )
