"""The verbs about a run that is there: verify, vacuum, explain, report."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import Debug, Json, run

Run = Annotated[str, typer.Argument(metavar="DST", help="A run: what `bfr restore` wrote; any fsspec URL.")]


def verify(destination: Run, as_json: Json = False, debug: Debug = False) -> None:
    """Hashes every file against its commit, and counts every row: exit code 1 with what is wrong."""

    def work() -> Any:
        from tasks.verify_run import verify_run

        return verify_run(destination)

    run(work, show.verified, as_json, debug, lambda found: int(not found["ok"]))


def vacuum(
    destination: Run,
    older_than: Annotated[str, typer.Option(help="90m, 2h, 7d: what is younger may belong to an attempt.")] = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Removes what killed attempts left: files that no commit names, temporary files, dangling uploads."""

    def work() -> Any:
        from tasks.vacuum_run import vacuum_run

        return vacuum_run(destination, older_than, dry_run=dry_run)

    run(work, show.vacuumed, as_json, debug)


def explain(
    destination: Run,
    row_id: Annotated[str, typer.Argument(metavar="ID", help="The row's id, as in the column `id`.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Which attempt, process, seed, scores and times made one row, or why it was rejected."""

    def work() -> Any:
        from tasks.explain_row import explain_row

        return explain_row(destination, row_id)

    run(work, show.explained, as_json, debug)


def report(destination: Run, as_json: Json = False, debug: Debug = False) -> None:
    """Renders the report of a finished run again."""

    def work() -> Any:
        from tasks.render_report import render_report

        return render_report(destination)

    run(work, show.report, as_json, debug)
