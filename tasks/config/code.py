"""Which code runs here, and where: what a run compares between its driver, its workers and its own past.

The same weights give other bytes under other code, so a run is done by one version of it. Versions are compared without
their local part: torch's builds for CPUs and for CUDA (`2.9.1+cpu`, `2.9.1+cu128`) may work on one run.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bfr_models
import tasks
from bfr_models.errors import BfrError, UsageError

Code = dict[str, str]
"""The digest of this package's files under `bfr`, and the versions of the libraries that decide a row's bytes."""

_LIBRARIES = {
    "torch": ("torch",),
    "pillow": ("pillow",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "tifffile": ("tifffile",),
    "imagecodecs": ("imagecodecs",),
    "pyarrow": ("pyarrow",),
    "numpy": ("numpy",),
}
INSTALL = (
    "install the same version of bfr-pipeline and of its libraries on every node (the driver's wheel and lock file: "
    "`pip install -r requirements.lock bfr_pipeline-*.whl`), then run the same command again"
)


@cache
def running_code() -> Code:
    """The code of this process, read once."""
    return {"bfr": _package_digest(), **{name: _version(names) for name, names in _LIBRARIES.items()}}


@cache
def _address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which interface the packet would take
        except OSError:
            return "127.0.0.1"  # a machine without a network
        return str(probe.getsockname()[0])


def this_process() -> dict[str, str | int]:
    """Where this code runs: the node's name and address, and the process."""
    return {"host": socket.gethostname(), "address": _address(), "pid": os.getpid()}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What differs between two codes, for people; "" if nothing does, or if one of them is not known."""
    if not expected or not found:
        return ""
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return "; ".join(
        f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}" for name in names
    )


def require_same_code(expected: Mapping[str, str], found: Mapping[str, str], where: Mapping[str, object]) -> None:
    """BfrError, which names the node, if its code is not the driver's."""
    if expected and (differing := differences(expected, found) or ("" if found else "an older version of it")):
        raise BfrError(
            f"expected the driver's code on node {where['host']} ({where['address']}), found other code there "
            f"({differing}): rows restored there could differ; {INSTALL}"
        )


def require_accepted_code(before: Mapping[str, str], *, accepted: bool) -> None:
    """UsageError if a run was begun by other code, unless that is accepted."""
    if not accepted and (differing := differences(before, running_code())):
        raise UsageError(
            f"expected the code that this run was begun with, found other code ({differing}): its rows could "
            "differ from those that are done; install that version again, or go on with --accept-code-change (each "
            "shard's commit says which code made it)"
        )


def _package_digest() -> str:
    digest = hashlib.sha256()
    for package in (bfr_models, tasks):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return "none"
