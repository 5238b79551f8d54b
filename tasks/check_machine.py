"""Checks this machine (`bfr doctor`): accelerator, Ray, Prefect, storage, detectors, recognisers and weights."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from bfr_models.errors import UsageError
from bfr_models.faces.detectors import choose_detector
from bfr_models.faces.recognisers import RECOGNISERS, choose_recogniser
from bfr_models.registry import methods
from bfr_models.weights.catalogue import entry_of
from bfr_models.weights.files import cache_folder, how_to_get, is_in_package
from tasks.list_weights import list_weights, verify_weights
from tasks.storage.redaction import redact

MIN_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """The result of one check. `missing`: an optional part is not installed; `bad`: something is broken."""

    name: str
    state: Literal["ok", "missing", "bad"]
    found: str
    advice: str = ""


def check_machine() -> list[Check]:
    """Runs all checks; none of them changes or starts anything."""
    checks = (_python, _disk, _accelerator, _torchvision, _ray, _prefect, _storage)
    return [check() for check in checks] + [*_detectors(), *_recognisers(), *_weights()]


def _python() -> Check:
    return Check("machine", "ok", f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")


def _disk() -> Check:
    free = shutil.disk_usage(".").free
    found = f"{free / 2**30:.1f} GiB free here"
    if free < MIN_FREE_BYTES:
        return Check("disk", "bad", found, "expected at least 2 GiB for Ray's session files and local output")
    return Check("disk", "ok", found)


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Check("accelerator", "ok", f"{names}; torch {torch.__version__}")
    advice = "the face128 presets run on a CPU; for GPUs install torch's CUDA build (README, 'On a GPU machine')"
    return Check("accelerator", "missing", f"no CUDA device; torch {torch.__version__}", advice)


def _torchvision() -> Check:
    if find_spec("torchvision") is None:
        return Check("torchvision", "ok", "not installed; only facexlib needs it")
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):  # the operators of its _C.so are missing
        advice = (
            "it was built for another torch: install a matching pair, or uninstall it; everything but facexlib works"
        )
        return Check("torchvision", "missing", "installed, but its compiled operators do not load", advice)
    return Check("torchvision", "ok", importlib.metadata.version("torchvision"))


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    version = importlib.metadata.version("ray")
    if not address:
        return Check("ray", "ok", f"{version}; no RAY_ADDRESS, a run starts its own cluster on this machine")
    return _reachable("ray", address if "//" in address else f"ray://{address}", "RAY_ADDRESS")


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    version = importlib.metadata.version("prefect")
    if not url:
        return Check("prefect", "ok", f"{version}; no PREFECT_API_URL, a run starts its embedded server")
    return _reachable("prefect", url, "PREFECT_API_URL")


def _reachable(name: str, url: str, variable: str) -> Check:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "ray": 6379}.get(parts.scheme, 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=3).close()
    except OSError as error:
        return Check(name, "bad", f"{redact(url)} does not answer ({error})", f"start it, or unset {variable}")
    return Check(name, "ok", f"{redact(url)} answers")


def _storage() -> Check:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        return _reachable("object store", endpoint, "AWS_ENDPOINT_URL")
    named = any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"))
    return Check("object store", "ok", "AWS credentials in the environment" if named else "no AWS credentials set")


def _detectors() -> Iterator[Check]:
    for name in ("dlib", "retinaface"):
        try:
            found = choose_detector(name, None)
        except UsageError as error:
            yield Check(f"detector {name}", "missing", "cannot find faces in photos", str(error))
        else:
            yield Check(f"detector {name}", "ok", Path(found.weights).name if found.weights else "from its package")


def _recognisers() -> Iterator[Check]:
    by_default = choose_recogniser("auto")
    for name in RECOGNISERS:
        try:
            found = choose_recogniser(name)
        except UsageError as error:
            yield Check(f"recogniser {name}", "missing", "cannot score identity", str(error))
        else:
            assert found is not None, "choose_recogniser gives None for `auto` and `none` only"
            default = ", the default" if found == by_default else ""
            yield Check(f"recogniser {name}", "ok", f"{found.name}, sha256 {found.sha256[:12]}{default}")


def _weights() -> Iterator[Check]:
    """The weights on this machine, whole or damaged; those that a preset needs and that are absent; the cache."""
    for row in verify_weights():
        if row["state"] == "damaged":
            yield Check(f"weights {row['name']}", "bad", "damaged", row["why"])
        else:
            yield Check(f"weights {row['name']}", "ok", f"{row['bytes'] / 2**20:.1f} MiB, sha256 as its card says")
    needed = {stem for spec in methods().values() for preset in spec.presets for stem in preset.weights.values()}
    for row in list_weights():
        if row["state"] == "absent" and row["stem"] in needed:
            yield _absent(row["stem"])
    yield Check("weight cache", "ok", f"{cache_folder()}; `bfr weights list` shows what there is")


def _absent(stem: str) -> Check:
    entry = entry_of(stem)
    if entry is None and is_in_package(stem):
        return Check(f"weights {stem}", "bad", "not in the package", "reinstall the package")
    if entry is None:
        advice = how_to_get(stem).removeprefix("found none; ")
        return Check(f"weights {stem}", "missing", "nobody has published them", advice)
    advice = f"{entry.licence}; its preset needs it: `bfr weights fetch {entry.to_fetch}`"
    return Check(f"weights {entry.name}", "missing", "not fetched", advice)
