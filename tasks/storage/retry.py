"""Retries transient storage errors: throttling, 5xx, dropped connections, timeouts, truncated bodies."""

from __future__ import annotations

import errno
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

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from tasks.storage.http_errors import causes, http_code, http_status
from tasks.storage.redaction import redact_text
from tasks.storage.waits import WaitLines

DEADLINE = 300.0  # seconds for one request with all its retries; after that its shard fails and is tried again later
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
# S3 sends some of these with a 400, a status that would be final by itself.
_TRANSIENT_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ThrottlingException"}
_AIOHTTP = "aiohttp.client_exceptions.ClientError"
# Classes by name, so that none of these libraries is imported for a store that does not use it.
_CONNECTION_ERRORS = {
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.ConnectionError",
    _AIOHTTP,
    "httpx.TimeoutException",
    "httpx.NetworkError",
    "httpx.RemoteProtocolError",
    "httpx.ProxyError",
}
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # on the clock of `time.monotonic`
_waits = WaitLines()

Result = TypeVar("Result")


@contextmanager
def retry_deadline(seconds: float) -> Iterator[None]:
    """No request in the block is retried once `seconds` have passed; shorter than `DEADLINE` for several together."""
    before = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(before)


def with_retries(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """The result of an idempotent request. Raises its last error once `DEADLINE` has passed, a final error at once."""
    # Random ("full jitter") waits keep the workers of a throttled store from coming back all at the same moment.
    pauses = wait_random_exponential(multiplier=0.25, max=10)
    tries = Retrying(
        retry=retry_if_exception(is_transient),
        wait=pauses,
        stop=stop_after_delay(min(DEADLINE, _deadline.get() - time.monotonic())),
        before_sleep=_say_what_it_waits_for,
        reraise=True,
    )
    return tries(_call_with_true_error, call, *arguments, **named)


def _say_what_it_waits_for(state: RetryCallState) -> None:
    """One line for all threads of this process, every ten seconds from the tenth on."""
    if not _waits.are_due(waited := state.seconds_since_start or 0.0):
        return
    error = state.outcome and state.outcome.exception()
    left = min(DEADLINE - waited, _deadline.get() - time.monotonic())
    tried = f"tried {state.attempt_number} times in {waited:.0f} s, for at most {max(left, 0):.0f} s more"
    _waits.say(redact_text(f"waiting for the store ({tried}): {type(error).__name__}: {error}"))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, _FINAL):
        return False
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN  # any other: the name does not resolve, and will not
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False  # although aiohttp wraps it in a connection error
    status = http_status(error)
    if status is not None:
        return status in (408, 429) or (status >= 500 and status != 501) or http_code(error) in _TRANSIENT_CODES
    if isinstance(error, TimeoutError | ConnectionError | EOFError):
        return True
    return bool(_class_names(error) & _CONNECTION_ERRORS)


def _call_with_true_error(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """The result of the call. fsspec's HTTP filesystem raises FileNotFoundError for any failure of `info`: unless it
    was a 404 or 410, this raises what it was."""
    try:
        return call(*arguments, **named)
    except PermissionError as error:
        raise _with_place(error, arguments) from error.__cause__
    except FileNotFoundError as error:
        cause, status = error.__cause__, http_status(error)
        if status in (404, 410) or not (isinstance(cause, TimeoutError) or _AIOHTTP in _class_names(cause)):
            raise _with_place(error, arguments) from cause
        kind = PermissionError if status in (401, 403) else ConnectionError
        raise kind(redact_text(f"{type(cause).__name__}: {cause}")) from cause


def _with_place(error: OSError, arguments: tuple[Any, ...]) -> OSError:
    """The error with the place that it is about, where a store's answer to a HEAD has neither that nor words."""
    if error.errno is not None or not arguments or not isinstance(arguments[0], str):
        return error
    number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EACCES
    said = error.args[0] if error.args and error.args[0] else None
    words = said if isinstance(said, str) and said not in arguments else http_code(error) or os.strerror(number)
    return type(error)(number, words, redact_text(arguments[0]))


def _class_names(error: BaseException | None) -> set[str]:
    """The full names of an error's classes; none for a ValueError: aiohttp's InvalidURL is a ClientError as well."""
    classes = () if isinstance(error, ValueError) else type(error).__mro__
    return {f"{cls.__module__}.{cls.__name__}" for cls in classes}


class RetryingFile(io.RawIOBase):
    """A remote file opened for reading; each read is retried, and returns all its bytes or raises."""

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
