"""The end of a run: a box on a terminal, lines in a log, and commands that can be copied from both."""

from __future__ import annotations

import io
import shlex
from typing import Any

import pytest
from rich.console import Console

from flows.cli.closing import closing

RECORD: dict[str, Any] = {
    "method": {"name": "difface", "preset": "face128"},
    "totals": {
        "rows": 1200, "restored": 1199, "rejected": 1, "changed": 9, "faces": 1300, "shards": 40, "wall_seconds": 61.5,
    },
    "outcomes": {"kept_original": 1291, "restored": 9},
    "rejects": {"undecodable": 1},
    "statistics": {"identity_similarity": {"mean": 0.98, "p05": 0.9, "p95": 1.0}, "identity_similarity_gt": {},
                   "psnr": {}, "ssim": {}},
    "warnings": ["the faces are larger than the preset"],
    "arguments": {"source": "/archive/restored/source", "destination": "/archive/restored"},
}  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_gets_a_box_and_commands_in_one_line_each(width: int) -> None:
    told = io.StringIO()
    closing(Console(file=told, force_terminal=True, width=width, soft_wrap=True, color_system=None), RECORD)
    box, _, rest = told.getvalue().partition("╯")
    assert "difface face128" in box and "╭" in box and "undecodable" in box
    assert all(len(line) <= width for line in box.splitlines())
    lines = rest.splitlines()
    assert "report: /archive/restored/report/index.html" in lines
    assert "next:   bfr export /archive/restored DIR    # the same files, restored" in lines
    assert any(line.startswith("next:   mend the files that the report names as undecodable, ") for line in lines)
    assert "│" not in rest


def test_a_log_gets_lines() -> None:
    told = io.StringIO()
    closing(Console(file=told, soft_wrap=True), RECORD)
    lines = told.getvalue().splitlines()
    assert lines[0] == (
        "1,200 rows in = 1,199 written (9 restored, 1,190 kept as they were) + 1 rejected, 40 shards, 61.5 s"
    )
    assert "rejected as undecodable: 1" in lines and not any("╭" in line for line in lines)


def test_a_command_with_a_path_that_has_a_space_can_be_copied() -> None:
    told, place = io.StringIO(), "/my scans/restored"
    record = {**RECORD, "arguments": {"source": f"{place}/source", "destination": place}}
    closing(Console(file=told, soft_wrap=True), record)
    commands = [line.removeprefix("next:   ") for line in told.getvalue().splitlines() if "next:   bfr" in line]
    assert [shlex.split(command, comments=True)[2] for command in commands] == [place, place]


@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_names_are_told_as_they_are(terminal: bool) -> None:
    """Rich would take `[old]` for a style, and end with an error at `[/b]`."""
    place, told = "/archive/[old]/[/b]", io.StringIO()
    record = {**RECORD, "warnings": [f"left out: {place}/a.parquet"]}
    record["arguments"] = {"source": "/somewhere/else", "destination": place}
    closing(Console(file=told, force_terminal=terminal, soft_wrap=True, color_system=None), record)
    lines = told.getvalue().splitlines()
    assert f"report: {place}/report/index.html" in lines and f"left out: {place}/a.parquet" in lines


@pytest.mark.parametrize(
    ("rejects", "mended", "again"),
    [
        (("undecodable", "bad_mask"), "undecodable, bad_mask", None),
        (("method_failed", "worker_killed"), None, "method_failed,worker_killed"),
        (("missing", "no_face"), "missing", "no_face"),
    ],
)
def test_files_that_cannot_be_read_are_to_be_mended_and_other_rows_tried_again(
    rejects: tuple[str, ...], mended: str | None, again: str | None
) -> None:
    told = io.StringIO()
    closing(Console(file=told, soft_wrap=True), RECORD | {"rejects": dict.fromkeys(rejects, 1)})
    start, retry = "next:   mend the files that the report names as ", " --retry-rejected "
    lines = told.getvalue().splitlines()
    assert [line.removeprefix(start).partition(", and")[0] for line in lines if line.startswith(start)] == (
        [mended] if mended else []
    )
    assert [line.partition(retry)[2] for line in lines if retry in line] == ([again] if again else [])


@pytest.mark.parametrize("source", ["/archive/restored/source", "/set"])
def test_a_run_that_has_written_nothing_suggests_nothing_to_do_with_it(source: str) -> None:
    told = io.StringIO()
    record = RECORD | {"arguments": RECORD["arguments"] | {"source": source}, "rejects": {"no_face": 1200}}
    closing(Console(file=told, soft_wrap=True), record | {"totals": RECORD["totals"] | {"restored": 0}})
    assert "--retry-rejected no_face" in told.getvalue() and "next:   bfr" not in told.getvalue()


@pytest.mark.parametrize(
    ("similarity", "suggested"), [({"mean": 0.9, "p05": 0.8, "p95": 1.0}, True), ({"why": "", "n": 0}, False)]
)
def test_rows_are_chosen_by_a_similarity_that_was_measured(similarity: dict[str, Any], suggested: bool) -> None:
    told, statistics = io.StringIO(), RECORD["statistics"] | {"identity_similarity": similarity}
    record = RECORD | {"statistics": statistics, "arguments": {"source": "/set", "destination": "/d"}}
    closing(Console(file=told, soft_wrap=True), record)
    assert ("bfr curate" in told.getvalue()) == suggested


def test_rows_of_files_that_were_packed_anew_are_told_and_are_not_to_be_mended() -> None:
    told = io.StringIO()
    totals = RECORD["totals"] | {"superseded": 3}
    closing(Console(file=told, soft_wrap=True), RECORD | {"totals": totals, "superseded_rejects": {"undecodable": 1}})
    assert "superseded: 3 of these rows, of files packed anew since" in told.getvalue()
    assert "mend" not in told.getvalue() and "--retry-rejected" not in told.getvalue()


def test_of_a_dataset_an_image_at_an_address_may_be_there_the_next_time() -> None:
    told = io.StringIO()
    record = RECORD | {
        "rejects": {"missing": 2, "undecodable": 1},
        "arguments": {"source": "/set", "destination": "/d"},
    }
    closing(Console(file=told, soft_wrap=True), record)
    assert "next:   mend the rows that the report names as undecodable, and run" in told.getvalue()
    assert "is tried again with --retry-rejected missing\n" in told.getvalue()
