"""`bfr reprocess` and `bfr generations` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from tests.generations import Ask


@pytest.mark.usefixtures("prefect_server", "signals")
def test_the_commands(ask: Ask, tmp_path: Path) -> None:
    place = [str(tmp_path / "src"), str(tmp_path / "dst")]
    settings = ["--set", "engine=local", "--set", "recogniser=none"]

    def bfr(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        return result.exit_code, json.loads(result.stdout)

    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings)
    first = outcome["generation"]
    assert code == 0 and outcome["run"]["totals"]["restored"] == 5
    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings, "--set", "seed=1")
    second = outcome["current"]
    assert code == 0 and second != first
    assert bfr("generations", "rollback", place[1]) == (0, {"current": first})
    code, outcome = bfr("reprocess", *place, "--method", "passthrough", *settings, "--set", "seed=1")
    assert code == 3 and outcome["held_back"] == ["it was rolled back"]
    code, listed = bfr("generations", "list", place[1])
    assert [(row["name"], row["state"]) for row in listed] == [(first, "current"), (second, "finished")]
    assert bfr("generations", "switch", place[1], second)[0] == 2
    assert bfr("generations", "switch", place[1], second, "--force") == (0, {"current": second})
    assert bfr("generations", "expire", place[1], "--keep", "1") == (0, {"expired": [first]})
    shown = CliRunner().invoke(app, ["generations", "list", place[1]]).stdout
    assert second in shown and first not in shown
    assert bfr("reprocess", *place, "--method", "passthrough", "--set", "seed")[0] == 2
