"""What a store's HTTP answer says, behind the exceptions of the libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an exception, if one is to be found.

    s3fs turns a 412 into FileExistsError on some servers and into a bare OSError(EINVAL) on others; the
    answer itself hangs on the cause.
    """
    if isinstance(error, FileExistsError):
        return 412
    if (status := _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")) is not None:
        return int(status)
    for cause in causes(error):
        of_httpx = getattr(getattr(cause, "response", None), "status_code", None)
        for status in (of_httpx, getattr(cause, "status", None)):  # aiohttp's own
            if isinstance(status, int):
                return status
    return None


def http_code(error: BaseException) -> str:
    """The store's own code for what went wrong, such as `SlowDown`."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _response(error: BaseException) -> dict[str, Any]:
    """What botocore has of the store's answer."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response
    return {}
