"""Finds the HTTP status and error code behind the exceptions of botocore, aiohttp and httpx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an exception, or None.

    s3fs turns a 412 into FileExistsError for some servers and into a bare OSError(EINVAL) for others; the response
    itself is kept on the exception's cause.
    """
    if isinstance(error, FileExistsError):
        return 412
    if (status := _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")) is not None:
        return int(status)
    for cause in causes(error):
        from_httpx = getattr(getattr(cause, "response", None), "status_code", None)
        for status in (from_httpx, getattr(cause, "status", None)):  # aiohttp has `status` on the error itself
            if isinstance(status, int):
                return status
    return None


def http_code(error: BaseException) -> str:
    """The store's error code, such as `SlowDown`; empty if there is none."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def http_message(error: BaseException) -> str:
    """The store's own words; empty if there are none."""
    return str(_response(error).get("Error", {}).get("Message", ""))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and the chain of its causes (`raise ... from`)."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _response(error: BaseException) -> dict[str, Any]:
    """The store's response as botocore parsed it; empty if there is none."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response
    return {}
