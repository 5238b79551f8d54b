"""Opens the fsspec filesystem of a URL with this project's settings.

Credentials and endpoints come from the environment and files that each driver reads by itself (AWS_PROFILE, ...), never
from here, and no message shows one.
"""

from __future__ import annotations

import re
from typing import Any

from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs

from bfr_models.errors import UsageError
from tasks.storage.redaction import redact

# fsspec caches listings, which hides what other machines write, and filesystem objects, which do not survive a fork.
_FRESH = {"use_listings_cache": False, "skip_instance_cache": True}

_S3 = {
    "default_block_size": 50 * 2**20,  # bytes per request when s3fs splits a large read
    "max_concurrency": 8,  # of those requests in flight
    "config_kwargs": {
        "retries": {"mode": "standard", "max_attempts": 2},  # few: s3fs tries 3 times around it, `with_retries` on top
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 32,  # botocore's 10 are fewer than the 16 threads that read commits
    },
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}

KEYED = ("s3", "s3a", "gs", "gcs")
"""Stores without folders: a name is a key, in which each slash counts."""


def connect(url: str) -> tuple[Any, str]:
    """The filesystem for a URL, and the URL's path in it. UsageError if no driver for it is installed."""
    if not url:  # as of a variable of the shell that is not set: it would be the folder that a command stands in
        raise UsageError("expected a path or a URL, found an empty one")
    if re.match(r"[a-z][a-z0-9+]+:/(?!/)", url):
        raise UsageError(
            f"expected a path or a URL, found {url!r}; a URL has two slashes: {url.replace(':/', '://', 1)}"
        )
    protocol = split_protocol(url)[0] or "file"
    try:
        layers = (_OPTIONS.get(protocol, {}), conf.get(protocol, {}), _configured_options(url))
        fs, path = url_to_fs(url, **(_merged(*layers) | _FRESH))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"cannot reach {redact(url)}: expected a protocol whose driver is installed, found {protocol!r} "
            f"({error}); correct the URL or install the driver's package (s3: s3fs, gs: gcsfs, az: adlfs)"
        ) from error
    if protocol in ("s3", "s3a"):
        fs.retries = 3
    return fs, path.rstrip("/")


def split_file(url: str) -> tuple[str, str]:
    """The folder of a file, and its path in there. Object stores know empty steps (`a//b.jpg`, `/b.jpg`): the slashes
    are part of the path then, since a folder does not end in one."""
    folder, slash, name = url.rpartition("/")
    if split_protocol(url)[0] in KEYED and "//" in folder.partition("://")[2] + "/":
        folder = folder.rstrip("/")
        name = url[len(folder) + 1 :]
    return folder or slash or ".", name


def place_of(url: str) -> str:
    """The longest prefix of a URL that has options in section `bfr` of fsspec's configuration; empty if none has.

    Such options give a source other credentials than the destination, by another profile for example.
    """
    places = (place.rstrip("/") for place in conf.get("bfr", {}))
    return max((place for place in places if f"{url}/".startswith(f"{place}/")), key=len, default="")


def _configured_options(url: str) -> dict[str, Any]:
    """The options that the configuration has for the place of a URL."""
    by_place = {place.rstrip("/"): options for place, options in conf.get("bfr", {}).items()}
    return dict(by_place.get(place_of(url), {}))


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Options of which each layer goes before those ahead of it; of two tables under one name the entries do."""
    options: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            known = options.get(name)
            options[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
    return options


def protocols(fs: Any) -> tuple[str, ...]:
    """All protocol names of a filesystem; fsspec has a string for one and a tuple for several."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
