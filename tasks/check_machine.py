"""Checks this machine (`bfr doctor`), and each node of a cluster as seen from this machine (`bfr doctor --cluster`)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from bfr_models.device import multiplies_bf16
from bfr_models.errors import UsageError
from bfr_models.faces.detectors import choose_detector
from bfr_models.faces.recognisers import RECOGNISERS, choose_recogniser
from bfr_models.registry import methods
from bfr_models.weights.catalogue import entry_of
from bfr_models.weights.files import cache_folder, how_to_get, is_in_package
from tasks.config.code import INSTALL, Code, differences, running_code
from tasks.config.environment import prepare_environment, ray_is_elsewhere
from tasks.list_weights import list_weights, verify_weights
from tasks.storage.redaction import redact

if TYPE_CHECKING:
    from tasks.engine.node_facts import Node

MIN_FREE_BYTES = 2 * 2**30
MAX_SKEW = 5.0  # seconds
State = Literal["ok", "missing", "bad"]


@dataclass(frozen=True)
class Check:
    """The result of one check. `missing`: an optional part is not installed; `bad`: something is broken."""

    name: str
    state: State
    found: str
    advice: str = ""
    node: str = ""
    """Of a cluster, for whose processes this holds; "" for this machine."""


def check_machine() -> list[Check]:
    """Runs all checks; none of them changes or starts anything."""
    checks = (_python, _disk, _accelerator, _torchvision, _ray, _prefect, _storage)
    return [check() for check in checks] + [*_detectors(), *_recognisers(), *_weights()]


def check_cluster(store: str | None = None) -> list[Check]:
    """Asks a process on each node of the Ray cluster at RAY_ADDRESS. With the URL of a `store`, each node reads and
    writes there, in a folder that is gone afterwards. UsageError without a cluster."""
    if not ray_is_elsewhere():
        raise UsageError("expected RAY_ADDRESS to name a cluster (host:6379), found none; set it, then ask again")
    prepare_environment()
    from tasks.engine.node_facts import ask_nodes, known_weights

    prefect = os.environ.get("PREFECT_API_URL")
    nodes, code, weights = ask_nodes(store, prefect), running_code(), known_weights()
    hosts = Counter(f"{node.host} ({node.address})" for node in nodes)
    checks = []
    for node in nodes:
        host = f"{node.host} ({node.address})"
        name = host if hosts[host] == 1 else f"{host} {node.id[:6]}"
        checks += [replace(check, node=name) for check in judge_node(node, code, weights)]
    return checks


def judge_node(node: Node, code: Code, weights: Mapping[str, str]) -> Iterator[Check]:
    """What a node says, beside the code and the weights (stem -> sha256) of the machine that asks."""
    if node.silent:
        yield Check("answer", "bad", node.silent, "look at its processes (`ray status`), or take it out of the cluster")
        return
    facts = node.facts
    differs = differences(code, facts["code"])
    yield Check(
        "code", "bad" if differs else "ok", differs or f"bfr {facts['code']['bfr']}", INSTALL if differs else ""
    )
    yield _same_weights(weights, facts["weights"])
    yield _gpus_of(node)
    memory = f"{facts['memory'] / 2**30:.1f} GiB"
    found = (
        f"{facts['cores']} cores, {memory}; {_own_precision(facts.get('bf16', False))}; Ray may use {node.cpus:g} CPUs"
    )
    yield Check("processors", "ok", found)
    yield _enough_disk(facts["disk"], "free for Ray's session files")
    yield _same_time(*node.skew)
    if facts["store"] is None:
        yield Check(
            "store", "missing", "not tried", "name a folder that the run may write to: --store s3://bucket/folder"
        )
    else:
        yield _store_access(facts["store"])
    if facts["prefect"] is not None:
        advice = "a driver on this node would go on without Prefect: let it reach PREFECT_API_URL"
        silent = facts["prefect"]
        yield Check("prefect", "missing" if silent else "ok", silent or "its API answers", advice if silent else "")


def _same_weights(here: Mapping[str, str], there: Mapping[str, str]) -> Check:
    others = sorted(stem for stem in here.keys() & there.keys() if here[stem] != there[stem])
    absent = sorted(here.keys() - there.keys())
    digest = hashlib.sha256(repr(sorted(there.items())).encode()).hexdigest()[:12]
    if others:
        advice = "a run is refused there: give it the same files, or the same BFR_WEIGHTS"
        return Check("weights", "bad", f"others than here: {', '.join(others)}", advice)
    if absent:
        return Check("weights", "missing", f"lacks {', '.join(absent)}", "get them there too, if a run needs them")
    return Check("weights", "ok", f"{len(there)} files, digest {digest}")


def _gpus_of(node: Node) -> Check:
    gpus, torch = node.facts["gpus"], node.facts["torch"]
    if not gpus:
        state: State = "bad" if node.gpus else "missing"
        advice = "Ray was told of GPUs that are not there" if node.gpus else "its workers would be on the CPU"
        return Check("accelerator", state, f"none; torch {torch}", advice)
    found = f"{'; '.join(gpus)}; torch {torch}; Ray may use {node.gpus:g}"
    if torch.endswith("+cpu"):
        return Check("accelerator", "bad", found, "install torch's CUDA build there (README, 'On a GPU machine')")
    if node.gpus < len(gpus):
        return Check("accelerator", "missing", found, f"start its Ray with --num-gpus={len(gpus)} to use them all")
    return Check("accelerator", "ok", found)


def _same_time(skew: float, within: float) -> Check:
    found = f"{skew:+.2f} s from here, within {within:.2f} s"
    if abs(skew) - within > MAX_SKEW:
        advice = "set it by NTP (chrony): object stores refuse clocks that are minutes off, and heartbeats go by them"
        return Check("clock", "bad", found, advice)
    return Check("clock", "ok", found)


def _store_access(done: Mapping[str, Any]) -> Check:
    able = [word for word in ("read", "write", "create") if done[word]]
    found = f"can {', '.join(able) or 'nothing'}" + (f": {done['why']}" if done["why"] else "")
    if not done["write"]:
        advice = "give the node the store's keys, and a way to its endpoint"
        if not done["why"] or "FileNotFound" in done["why"]:
            advice = "it is not the store that this machine has written to: a folder of the node's own?"
        return Check("store", "bad", found, advice)
    if not done["create"]:
        return Check(
            "store", "missing", found, "no conditional puts: one driver at a time, see infra/COMMIT_PROTOCOL.md"
        )
    return Check("store", "ok", found)


def _python() -> Check:
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    return Check("machine", "ok", f"{machine}; {_own_precision(multiplies_bf16())}")


def _own_precision(has_bf16: bool) -> str:
    return f"--precision auto is {'bf16' if has_bf16 else 'fp32'} on its CPU"


def _disk() -> Check:
    return _enough_disk(shutil.disk_usage(".").free, "free here")


def _enough_disk(free: int, what: str) -> Check:
    found = f"{free / 2**30:.1f} GiB {what}"
    if free < MIN_FREE_BYTES:
        return Check("disk", "bad", found, "expected at least 2 GiB for Ray's session files and local output")
    return Check("disk", "ok", found)


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Check("accelerator", "ok", f"{names}; torch {torch.__version__}")
    advice = (
        "the presets face128 and face256 run on a CPU; for GPUs install torch's CUDA build (README, 'On a GPU machine')"
    )
    return Check("accelerator", "missing", f"no CUDA device; torch {torch.__version__}", advice)


def _torchvision() -> Check:
    from bfr_models.networks.diffusers_compat import torchvision_is_broken

    if find_spec("torchvision") is None:
        return Check("torchvision", "ok", "not installed; only facexlib needs it")
    if torchvision_is_broken():
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
