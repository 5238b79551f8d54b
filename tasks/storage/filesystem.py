"""From a URL to an fsspec filesystem with this project's settings, and what its errors mean.

Credentials and endpoints come from the ecosystem's environment, never from here; no message shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
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


def place_of(url: str) -> str:
    """The longest prefix of a URL that fsspec's configuration has something to say of, in its section `bfr`: another
    profile for a source that is read with other credentials, say. Empty if there is none."""
    places = (place.rstrip("/") for place in conf.get("bfr", {}))
    return max((place for place in places if f"{url}/".startswith(f"{place}/")), key=len, default="")


def _of_the_place(url: str) -> dict[str, Any]:
    """What is said of it."""
    said = {place.rstrip("/"): options for place, options in conf.get("bfr", {}).items()}
    return dict(said.get(place_of(url), {}))


def protocols(fs: Any) -> tuple[str, ...]:
    """The names that a filesystem goes by."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def redact(url: str) -> str:
    """The URL without what may be secret: user and password, and the query of a signed link."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redact_text(text: str) -> str:
    """Somebody's message with every URL in it redacted. A password may hold whatever ends a URL but `/?#`."""
    text = re.sub(r"(?<=://)[^\s'\"<>/?#@:]*:[^/?#\n]*@", "", text)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>]+", _redacted, text)


def redact_error(error: BaseException) -> None:
    """Redacts the message of an error, and of all that led to it, before others store or print them."""
    error.args = tuple(redact_text(part) if isinstance(part, str) else part for part in error.args)
    for link in ("__cause__", "__context__"):
        if (cause := getattr(error, link)) is None:
            continue
        redact_error(cause)
        if (text := redact_text(str(cause))) != str(cause):  # some make their message of other things
            stand_in = Exception(f"{type(cause).__name__}: {text}").with_traceback(cause.__traceback__)
            stand_in.__cause__, stand_in.__context__ = cause.__cause__, cause.__context__
            hidden = error.__suppress_context__
            setattr(error, link, stand_in)
            error.__suppress_context__ = hidden


def _redacted(found: re.Match[str]) -> str:
    try:
        return redact(found[0])
    except ValueError:
        return "a URL that cannot be read"


def without_secrets(url: str) -> str:
    """The URL without user and password, and without the query of a web address; a key with `?` in it stays whole."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path = path.partition("?")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def with_secrets(url: str, given: str) -> str:
    """The URL of a file with what `without_secrets` took from it, out of the URL that its dataset was given as."""
    if url == without_secrets(given):
        return given
    scheme, mark, rest = given.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    bare = f"{scheme}{mark}{host}/"
    return f"{scheme}{mark}{user}{at}{host}/{url.removeprefix(bare)}" if at and url.startswith(bare) else url


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
