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
CODE = f"""
import importlib, json, sys
found = {{}}
for name in {DRIVER}:
    importlib.import_module(name)
    found[name] = [heavy for heavy in {HEAVY} if heavy in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """In a fresh process: which heavy packages are loaded after importing each module in turn."""
    command = [sys.executable, "-c", CODE]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@pytest.mark.parametrize("module", DRIVER)
def test_the_driver_loads_neither_torch_prefect_nor_ray(module: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[module] == []
