"""What is in `infra/`, parsed."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
Document = dict[str, Any]


@cache
def locked() -> dict[str, str]:
    """The versions in the lock file, by name."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def read_yaml(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def base() -> list[Document]:
    """The objects of the base, its anchors resolved. To be read only, as all that is cached here."""
    names = read_yaml(KUBERNETES / "base/kustomization.yaml")[0]["resources"]
    return [document for name in names for document in read_yaml(KUBERNETES / "base" / name)]


@cache
def overlay(name: str) -> list[Document]:
    """The objects that `kubectl apply -k` would send; skips without kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    folder = KUBERNETES / "overlays" / name
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pod_specs(document: Document) -> list[Document]:
    """The pods' specifications in any object, at any depth."""
    found: list[Document] = []
    if isinstance(document, dict):
        if isinstance(document.get("containers"), list):
            found.append(document)
        for value in document.values():
            found += pod_specs(value)
    elif isinstance(document, list):
        for value in document:
            found += pod_specs(value)
    return found


def ray_spec(document: Document) -> Document:
    """The specification of the cluster in a RayCluster or RayJob."""
    return document["spec"].get("rayClusterSpec", document["spec"])
