"""Storage trouble that passes is waited out: throttling, 5xx, cut connections, timeouts, bodies that end early."""

from __future__ import annotations

import io
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from tasks.storage.http_errors import causes, http_code, http_status
from tasks.storage.redaction import redact_text

DEADLINE = 300.0  # seconds for one request with all its repetitions; a shard is tried again after that
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ThrottlingException"}
_AIOHTTP = "aiohttp.client_exceptions.ClientError"
_CONNECTIONS = {
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.ConnectionError",
    _AIOHTTP,
    "httpx.TimeoutException",
    "httpx.NetworkError",
    "httpx.RemoteProtocolError",
    "httpx.ProxyError",
}
_until: ContextVar[float] = ContextVar("until", default=math.inf)  # by `time.monotonic`

Result = TypeVar("Result")


@contextmanager
def retry_deadline(seconds: float) -> Iterator[None]:
    """Within its block no request is repeated once that time has passed."""
    before = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(before)


def with_retries(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """The result of a request that may safely be repeated; its last error once `DEADLINE` has passed, or at once
    when no other try can mend it."""
    waits = wait_random_exponential(multiplier=0.25, max=20)
    stop = stop_after_delay(min(DEADLINE, _until.get() - time.monotonic()))
    tries = Retrying(retry=retry_if_exception(is_transient), wait=waits, stop=stop, reraise=True)
    return tries(_plainly, call, *arguments, **named)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may do better in a while."""
    if isinstance(error, _FINAL):
        return False
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN  # else there is no machine of that name
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
    status = http_status(error)
    if status is not None:
        return status in (408, 429) or (status >= 500 and status != 501) or http_code(error) in _PASSING_CODES
    if isinstance(error, TimeoutError | ConnectionError | EOFError):
        return True
    return bool(_kinds(error) & _CONNECTIONS)


def _plainly(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """The call. What goes wrong with a web address, fsspec calls a file that is not there: 404 and 410 are."""
    try:
        return call(*arguments, **named)
    except FileNotFoundError as error:
        cause, status = error.__cause__, http_status(error)
        if status in (404, 410) or not (isinstance(cause, TimeoutError) or _AIOHTTP in _kinds(cause)):
            raise
        kind = PermissionError if status in (401, 403) else ConnectionError
        raise kind(redact_text(f"{type(cause).__name__}: {cause}")) from cause


def _kinds(error: BaseException | None) -> set[str]:
    """The names of its classes; none for a ValueError, such as aiohttp's for what is no URL."""
    kinds = () if isinstance(error, ValueError) else type(error).__mro__
    return {f"{kind.__module__}.{kind.__name__}" for kind in kinds}


class RetryingFile(io.RawIOBase):
    """A remote file opened for reading; each read is whole, or raises."""

    def __init__(self, opened: BinaryIO, size: int) -> None:
        self._opened, self._size, self._at = opened, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = with_retries(self._read, left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._opened.close()
        super().close()

    def _read(self, size: int) -> bytes:
        self._opened.seek(self._at)
        data = self._opened.read(size) if size else b""
        if len(data) != size:
            raise EOFError(f"expected {size} bytes at {self._at}, the store sent {len(data)}")
        return data
