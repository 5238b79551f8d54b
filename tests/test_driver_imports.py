"""The driver stays small: what plans, hands out and closes a run loads no torch and no Ray when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import ROOT

DRIVER = (
    "tasks.config.resolve",
    "tasks.plan_shards",
    "tasks.engine.dispatch",
    "tasks.finish_run",
    "flows.cli.app",
)
HEAVY = ("torch", "ray", "cv2", "dlib")
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
    """By module of the driver, in the order of import: what heavy is loaded by then, in a fresh process."""
    command = [sys.executable, "-c", CODE]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@pytest.mark.parametrize("module", DRIVER)
def test_the_driver_loads_neither_torch_nor_ray(module: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[module] == []
