"""Workers run the driver's code, or none of their rows count: who differs is refused by the name of its node."""

from __future__ import annotations

import re
from typing import Any

import ray
from ray.exceptions import RayError

from bfr_models.errors import BfrError
from tasks.config.code import INSTALL, require_same_code, running_code, this_process
from tasks.worker.job import Job

_NO_PACKAGE = re.compile(r"No module named '((?:tasks|bfr_models|flows)\b[^']*|[\w.]+)'")
_ADDRESS = re.compile(r"\bip=([\w.:]+)")


def introduce(job: Job) -> dict[str, Any]:
    """In a worker: which code it runs, and where. BfrError unless it is the driver's."""
    code, process = running_code(), this_process()
    require_same_code(job.code, code, process)
    return {**process, "code": code}


def check_introduction(job: Job, said: object) -> str:
    """In the driver: the same once more; returns the node. Workers of older versions do not check, and say nothing of
    their code."""
    unknown: dict[str, Any] = {"host": "of an unknown name", "address": "see Ray's dashboard", "code": {}}
    facts: dict[str, Any] = said if isinstance(said, dict) else unknown
    require_same_code(job.code, facts["code"], facts)
    return f"node {facts['host']} ({facts['address']})"


def lacks_package(error: RayError) -> BfrError | None:
    """What to raise if an actor died because its node cannot import this program; None if it died of something else."""
    text = str(error)
    missing = _NO_PACKAGE.search(text)
    if missing is None and "failed to import on the worker" not in text:
        return None
    address = _ADDRESS.search(text)
    where = f"on {node_at(address[1])}" if address else "on one of the cluster's nodes"
    found = f"none that can be imported (No module named {missing[1]!r})" if missing else "none that can be imported"
    return BfrError(f"expected bfr-pipeline {where}, found {found}; {INSTALL}")


def node_at(address: str) -> str:
    """The cluster's node at an address, for messages; "" if there is none."""
    names = [node["NodeManagerHostname"] for node in ray.nodes() if node["NodeManagerAddress"] == address]
    return f"node {names[0]} ({address})" if names else address
