"""The command in a report's provenance is one that `bfr restore` takes, and asks for the same."""

from __future__ import annotations

import html
import re
import shlex
from typing import Any

import pytest
import typer

from flows.cli.app import app
from flows.cli.options import settings_from
from tasks.config.restore import RestoreRun
from tasks.report.run_report import render_report

ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"effort": "draft", "format": "webp", "quality": 80, "options": {"steps": 4, "eta": 0.5}},
    {
        "input": "photos",
        "upscale": "auto",
        "max_harm": 0.1,
        "batch_size": "auto",
        "retry_rejected": ("no_face", "missing"),
    },
    {"gt_column": "gt", "metrics": ("niqe",), "keep_input": True, "min_identity": "wild", "size": "network"},
)


@pytest.mark.parametrize("asked", ASKED)
def test_it_asks_for_the_same_run(asked: dict[str, Any]) -> None:
    run = RestoreRun(source="s3://in/scans", destination="/out", method="difface", preset="face128", **asked)
    method = {"name": run.method, "preset": run.preset}
    page = render_report("Title", [{"method": method, "seed": run.seed, "arguments": run.arguments}], [], [])
    (line,) = re.findall(r"<pre><code>(bfr restore .*?)</code></pre>", page)
    _, verb, *words = shlex.split(html.unescape(line))
    command: Any = typer.main.get_command(app)
    context = command.commands[verb].make_context(verb, words)
    assert RestoreRun(**settings_from(context, RestoreRun)) == run


def test_what_only_a_schedule_asks_for_is_left_out() -> None:
    arguments = {"source": "a", "destination": "b", "retire_deleted": True, "leave_out_damaged": True}
    page = render_report("Title", [{"method": {"name": "difface"}, "arguments": arguments}], [], [])
    assert "<pre><code>bfr restore a b --method difface</code></pre>" in page
