"""The driver stays small: importing what plans, dispatches and finishes a run loads neither torch, Prefect nor Ray."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import ROOT

DRIVER = (
    "tasks.config.resolve",
    "tasks.pack_pictures",
    "tasks.plan_shards",
    "tasks.engine.dispatch",
    "tasks.finish_run",
    "flows.cli.app",
)
HEAVY = ("torch", "prefect", "ray", "cv2", "dlib")
SPARED = {  # what a person waits for, and what it must do without
    "flows.cli.app": (*HEAVY, "numpy", "pyarrow", "fsspec", "duckdb", "httpx", "jinja2"),
    "tasks.review_run": (*HEAVY, "PIL", "httpx", "jinja2"),
}
CODE = """
import importlib, json, sys
found = {{}}
for name in {modules}:
    importlib.import_module(name)
    found[name] = [package for package in {packages} if package in sys.modules]
print(json.dumps(found))
"""


def loaded_by(modules: tuple[str, ...], packages: tuple[str, ...]) -> dict[str, list[str]]:
    """In a fresh process: which of the packages are loaded after importing each module in turn."""
    command = [sys.executable, "-c", CODE.format(modules=modules, packages=packages)]
    found: dict[str, list[str]] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    )
    return found


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    return loaded_by(DRIVER, HEAVY)


@pytest.mark.parametrize("module", DRIVER)
def test_the_driver_loads_neither_torch_prefect_nor_ray(module: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[module] == []


@pytest.mark.parametrize("module", SPARED)
def test_what_a_person_waits_for_loads_only_what_it_needs(module: str) -> None:
    assert loaded_by((module,), SPARED[module]) == {module: []}
