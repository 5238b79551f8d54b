"""The cluster files agree with the product: commands, versions, metrics; and they are well-formed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import ray
import typer
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from flows.cli.app import app
from tests.infra.files import INFRA, locked, read_yaml
from tests.support import ROOT

YAML = sorted(path for path in INFRA.rglob("*.yaml"))
TEXTS = sorted(
    path for path in INFRA.rglob("*") if path.is_file() and path.suffix in {".md", ".yaml", ".sbatch", ".env"}
)
SCRIPTS = sorted([*INFRA.glob("*.sh"), INFRA / "slurm/restore.sbatch"])


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(INFRA)))
def test_yaml_is_well_formed(path: Path) -> None:
    config = YamlLintConfig(file=str(ROOT / ".yamllint"))
    assert not [str(problem) for problem in linter.run(path.read_text(), config, str(path))]
    assert read_yaml(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_well_formed(path: Path) -> None:
    checks = [["bash", "-n", str(path)]]
    if shellcheck := shutil.which("shellcheck"):
        checks.append([shellcheck, "--severity", "warning", str(path)])
    for check in checks:
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def commands() -> list[tuple[str, list[str]]]:
    """Every `bfr` command with options in the files: which file it is in, and its words."""
    found = []
    for path in TEXTS:
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        text = re.sub(r'",\s*"|\n\s*-\s(?=-|bfr|\w+:|s3:|deploy|restore)', " ", text)
        text = re.sub(r"\n\s+(?=--)", " ", text)
        for match in re.findall(r"(?<!-n )(?<!pool )\bbfr ((?:[a-z-]+ )+[^\n`;|)\]']*--[^\n`;|)\]']*)", text):
            found.append((str(path.relative_to(INFRA)), match.split()))
    return found


def test_commands_are_those_that_bfr_has() -> None:
    root = typer.main.get_command(app)
    checked = set()
    for place, words in commands():
        command: Any = root
        while isinstance(command, click.Group) or hasattr(command, "commands"):
            name = words.pop(0)
            assert name in command.commands, f"{place}: bfr has no {name}"
            command = root if name == "submit" and words[0] in root.commands else command.commands[name]
        checked.add(command.name)
        known = {option for parameter in command.params for option in parameter.opts}
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in known, f"{place}: bfr {command.name} has no {option}"
    assert {"restore", "deploy", "fetch"} <= checked


def test_ray_up_is_valid_by_rays_own_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    config = read_yaml(INFRA / "ray/aws.yaml")[0]
    jsonschema.validate(config, schema)
    gpu, head = (config["available_node_types"][name] for name in ("gpu", "head"))
    assert gpu["min_workers"] == 0 and gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert head["resources"] == {"CPU": 0}
    assert head["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert config["head_node_type"] == "head" and config["provider"]["use_internal_ips"]


def test_no_file_names_another_version() -> None:
    for path in TEXTS:
        for name, version in re.findall(r"\b(ray|prefect|torch)(?:==|:)(\d+\.\d+\S*)", path.read_text()):
            assert version == locked()[name], path


def test_the_dashboard_shows_what_ray_exports() -> None:
    modules = Path(ray.__file__).parent / "dashboard/modules"
    known = (modules / "reporter/reporter_agent.py").read_text()
    known += (modules / "metrics/dashboards/default_dashboard_panels.py").read_text()
    dashboard = json.loads((INFRA / "monitoring/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\bray_(\w+)", query)}
    assert len(asked) >= 10
    for name in asked:
        assert f'"{name}"' in known or f"ray_{name}{{" in known, name
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))


def test_prometheus_asks_the_port_that_ray_is_told() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    found = read_yaml(INFRA / "monitoring/prometheus.compose.yaml")[0]["scrape_configs"][0]["dns_sd_configs"][0]
    for name in found["names"]:
        assert f"--metrics-export-port={found['port']}" in " ".join(compose[name]["command"])
