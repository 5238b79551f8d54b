"""Whether Ray can work where its variables say, known without Ray and before anything is started."""

from __future__ import annotations

import os
import socket
import tempfile
from importlib.util import find_spec
from urllib.parse import urlsplit

from bfr_models.errors import UsageError
from tasks.storage.redaction import redact

CONNECT_SECONDS = 5.0  # Ray itself tries for minutes, and ignores signals meanwhile
_SESSION = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
LONGEST = 107 - _SESSION
"""Characters that a folder for Ray's files may have: a socket's whole path has at most 107."""


def require_ray_place() -> None:
    """UsageError for a RAY_ADDRESS that is none or does not answer, for a RAY_TMPDIR that Ray cannot use, and for a
    RAY_RUNTIME_ENV_HOOK that it cannot import."""
    _require_hook()
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        _require_folder()
    else:
        _require_answer(address)


def _require_hook() -> None:
    package = (hook := os.environ.get("RAY_RUNTIME_ENV_HOOK", "")).partition(".")[0]
    if package and find_spec(package) is None:
        raise UsageError(
            f"expected a function that this Python can import in RAY_RUNTIME_ENV_HOOK={hook}, found no module "
            f"{package}; install it, or unset the variable"
        )


def _require_folder() -> None:
    named = os.environ.get("RAY_TMPDIR")
    try:
        folder = os.path.abspath(named or tempfile.gettempdir())
    except OSError:
        folder = "/tmp"  # noqa: S108 - the first of those that Python has tried
    if len(folder) > LONGEST:
        raise UsageError(
            f"expected a folder for Ray's files of at most {LONGEST} characters (its sockets' paths are limited), "
            f"found {len(folder)}: {folder}; set RAY_TMPDIR to a shorter one, or do without Ray: --engine local"
        )
    place = folder
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not (os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)):
        raise UsageError(
            f"expected a folder for Ray's files that this user can write, found {place}; set RAY_TMPDIR to another, "
            "or do without Ray: --engine local"
        )


def _require_answer(address: str) -> None:
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.scheme not in ("", "ray"):
        raise UsageError(
            f"expected RAY_ADDRESS as HOST:PORT of a cluster's head (6379 as a rule) or as ray://HOST:10001, found "
            f"{redact(address)}, as its dashboard has it; correct it, or unset it to use this machine"
        )
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if address == "auto":
        return  # Ray finds it
    if not host or not port:
        raise UsageError(
            f"expected RAY_ADDRESS as HOST:PORT, ray://HOST:PORT, auto or local, found {redact(address)!r}; correct "
            "it, or unset it to use this machine"
        )
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"expected a Ray cluster at RAY_ADDRESS={redact(address)}, found nothing that answers ({error}); start it, "
            "or unset RAY_ADDRESS to use this machine"
        ) from None
