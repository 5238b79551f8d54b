"""`bfr assess`, and how `bfr restore` says what it took its source for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli.app import app
from tests import support

pytestmark = pytest.mark.usefixtures("signals")


def bfr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_table_or_one_document(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    asked = ("assess", tmp_path / "src", tmp_path / "dst", "--method", "passthrough", "--limit", 3)
    shown = bfr(*asked)
    assert shown.exit_code == 0, shown.output
    assert "not_judged" in shown.stdout and "a part of the 4 rows of the source" in shown.stdout
    assert "is taken for aligned faces" in shown.stderr
    again = bfr(*asked, "--json")
    assert json.loads(again.stdout)["counts"]["pictures"] == 3
    assert bfr(*asked[:-1], 2).exit_code == 2  # another assessment


def test_photos_as_faces_end_with_2_and_the_command_to_use(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": support.encoded(support.portrait(n)[:60]), "path": None}} for n in range(2)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    asked = ("restore", tmp_path / "src", tmp_path / "dst", "--method", "passthrough", "--engine", "local")
    refused = bfr(*asked, "--input", "faces")
    assert refused.exit_code == 2 and not (tmp_path / "dst").exists()
    command = f"bfr restore {tmp_path / 'src'} {tmp_path / 'dst'} --method passthrough --input photos"
    assert command in refused.stderr
    planned = bfr(*asked, "--plan")
    assert planned.exit_code == 0 and "is taken for photos: the first 2 pictures are not square" in planned.stderr
