"""From a URL to an fsspec filesystem with this project's settings, and what its errors mean.

Credentials and endpoints come from the ecosystem's environment, never from here; no message shows one.
"""

from __future__ import annotations

import re
from typing import Any

from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs

from bfr_models.errors import UsageError
from tasks.storage.redaction import redact

# A cached listing hides what other machines write; a cached client does not survive a fork.
_FRESH = {"use_listings_cache": False, "skip_instance_cache": True}

_S3 = {
    "default_block_size": 50 * 2**20,
    "max_concurrency": 8,
    "config_kwargs": {
        "retries": {"mode": "standard", "max_attempts": 2},  # s3fs tries three times, and `retry` on top
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
