"""From a URL to an fsspec filesystem with this project's settings, and what its errors mean.

Credentials and endpoints come from the ecosystem's environment, never from here; no message shows one.
"""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs

from bfr_models.errors import UsageError

# A cached listing hides what other machines write; a cached client does not survive a fork.
_FRESH = {"use_listings_cache": False, "skip_instance_cache": True}

_S3 = {
    "default_block_size": 50 * 2**20,
    "max_concurrency": 8,
    "config_kwargs": {
        "retries": {"mode": "standard", "max_attempts": 2},  # s3fs tries three times, and `_patience` on top
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 32,
    },
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}


def connect(url: str) -> tuple[Any, str]:
    """The filesystem of a URL and the path of the URL in it. UsageError when there is no driver for it."""
    if re.match(r"[a-z][a-z0-9+]+:/(?!/)", url):
        raise UsageError(
            f"expected a path or a URL, found {url!r}; a URL has two slashes: {url.replace(':/', '://', 1)}"
        )
    protocol = split_protocol(url)[0] or "file"
    try:
        fs, path = url_to_fs(url, **_FRESH, **(_OPTIONS.get(protocol, {}) | _of_the_place(url)))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"cannot reach {redact(url)}: expected a protocol whose driver is installed, found {protocol!r} "
            f"({error}); correct the URL or install the driver's package (s3: s3fs, gs: gcsfs, az: adlfs)"
        ) from error
    if protocol in ("s3", "s3a"):
        fs.retries = 3
    return fs, path.rstrip("/")


def _of_the_place(url: str) -> dict[str, Any]:
    """What fsspec's configuration says of a bucket or folder, in its section `bfr`, by the longest prefix: another
    profile for a source that is read with other credentials, say."""
    places = [place for place in conf.get("bfr", {}) if f"{url}/".startswith(f"{place.rstrip('/')}/")]
    return dict(conf["bfr"][max(places, key=len)]) if places else {}


def protocols(fs: Any) -> tuple[str, ...]:
    """The names that a filesystem goes by."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def redact(url: str) -> str:
    """The URL without what may be secret: user and password, and the query of a signed link."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an exception, if one is to be found.

    s3fs turns a 412 into FileExistsError on some servers and into a bare OSError(EINVAL) on others; the
    answer itself hangs on the cause.
    """
    if isinstance(error, FileExistsError):
        return 412
    return cast("int | None", _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode"))


def http_code(error: BaseException) -> str:
    """The store's own code for what went wrong, such as `SlowDown`."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, Any]:
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response
        cause = cause.__cause__
    return {}
