"""What the verbs about files and assessments print on a terminal."""

from __future__ import annotations

from datetime import timedelta
from shlex import quote
from typing import Any

from rich.table import Column, Table

from flows.cli.show import EXAMPLES, Result, by_reason, console, outdated
from tasks.runs.layout import LEFT_OUT
from tasks.storage.redaction import redact
from tasks.storage.waits import say


def export(report: Result) -> None:
    """How many images came out changed and unchanged, and what did not come out."""
    counts = ", ".join(f"{report[state]} {state}" for state in ("changed", "unchanged", "rejected") if report[state])
    console.print(f"{report['images']} images{': ' if counts else ''}{counts}; {report['written']} files written")
    if report["superseded"]:
        console.print(f"{report['superseded']} rows of files that were packed anew later are superseded: not exported")
    outdated(report["outdated_decisions"])
    for one in report["renamed"][:EXAMPLES]:
        console.print(f"renamed: {one['name']!r} is {one['as']!r}", markup=False)
    if report["noted"]:
        console.print(f"{report['noted']} of those written could not stay quite as they were: `notes` in their .json")
    for one in report["not_exported"][:EXAMPLES]:
        console.print(f"not exported: {one['id']}: {one['why']}", markup=False)
    if report["missing"]:
        console.print(
            f"[yellow]{report['missing']} images were not exported[/]: their own bytes are needed. Put the source back "
            "as it was and run this again, or restore with --keep-input"
        )
    console.print(f"files: {report['folder']}", markup=False)


def assessed(record: Result) -> None:
    """Pictures and faces by outcome, and how long a restore would take."""
    counts, estimate = record["counts"], record["estimate"]
    view = Table("outcome", Column("pictures", justify="right"), Column("faces", justify="right"))
    for outcome in dict.fromkeys([*record["outcomes"], *record["face_outcomes"]]):
        numbers = (record[key].get(outcome, 0) for key in ("outcomes", "face_outcomes"))
        view.add_row(outcome, *(f"{number:,}" for number in numbers))
    if view.row_count > 1:
        view.add_section()
        view.add_row("in all", f"{counts['pictures']:,}", f"{counts['faces']:,}")
    console.print(view)
    if counts["pictures"] < record["rows_in_source"]:
        console.print(f"a part of the {record['rows_in_source']:,} rows of the source")
    if record["judge"] is None:
        console.print("[yellow]no judge knows this method's networks: every face would be replaced[/]")
    duplicates = counts["duplicates"]
    console.print(f"{duplicates['pictures']:,} pictures look like an earlier one, in {duplicates['groups']:,} groups")
    if estimate["seconds_all"] is not None:
        times = [timedelta(seconds=round(estimate[key])) for key in ("seconds_all", "seconds_selected")]
        console.print(
            f"a restore takes about {times[0]} of all, {times[1]} of the {counts['selected']:,} pictures it would "
            f"change: `--select {record['arguments']['destination']}` (one worker like this machine)",
            markup=False,
        )
    console.print(f"report: {record['report']}", markup=False)


def packed(files: Any, report: Any) -> None:
    """Says what a run has found and packed into itself: its own result is still to come."""
    if files.moved_from:
        say(f"{redact(files.source)} has the files that were packed from {files.moved_from}: the run goes on with them")
    if files.todo:
        say(f"packed {report.rows} images of {files.source} into {files.url} ({report.bytes / 2**20:.1f} MiB)")
    else:
        say(f"{len(files.found.files)} files of {files.source} are packed already: none is new or changed")
    if files.changed:
        say(f"{files.changed} of them had changed: their rows of before stay, and so do the results")
    if files.same:
        say(f"{len(files.same)} files have a new date and the same bytes: they are not packed again")
    if files.gone:
        say(
            f"{files.gone} of {len(files.packed.versions)} files packed before are gone from {redact(files.source)}: "
            "their rows stay, and so do the results"
        )
    for line in by_reason(report.skipped):
        say(f"left out: {line}")
    if report.left_out:
        say(f"{report.left_out} files are left out in all, named with the reasons in {files.url}/*/{LEFT_OUT}")
    for line in by_reason(report.lost):
        say(f"packed without its bytes: {line}")


def reviewed(result: Result) -> None:
    """What has been decided, and the commands that go by it."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result["decisions"].items() if count)
    own, run = sum(result["own"].values()), quote(result["run"])
    console.print(f"decided: {counts or 'nothing yet'}; {own} by {result['reviewer']}", markup=False)
    outdated(result["outdated"])
    if result["decisions"]["approved"]:
        console.print(f"  bfr export {run} DIR --only approved", markup=False)
    if result["decisions"]["redo"]:
        console.print(f"  bfr restore {run} DST --redo", markup=False)
