"""The verbs on an existing run: verify, repair, vacuum, explain, report."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run
from flows.cli.options import AcceptCodeChange, Debug, Json

Run = Annotated[
    str,
    typer.Argument(
        metavar="DST",
        help="A run, the DST of `bfr restore`, or that of `bfr reprocess`: its current generation; any fsspec URL.",
    ),
]


def verify(
    destination: Run,
    and_repair: Annotated[bool, typer.Option("--repair", help="Mend what is wrong: the same as `bfr repair`.")] = False,
    accept_code_change: AcceptCodeChange = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every file against its commit and count every row; exit code 1 if anything is wrong."""
    if and_repair:
        repair(destination, accept_code_change, as_json, debug)

    def work() -> Any:
        from tasks.verify_run import verify_run

        return verify_run(destination)

    run(work, show.verified, as_json, debug, lambda found: int(not found["ok"]))


def repair(
    destination: Run,
    accept_code_change: AcceptCodeChange = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find what is damaged and mend it from the source and the plan; exit code 1 if something is left."""

    def work() -> Any:
        from flows.repair_dataset import repair_dataset

        return repair_dataset(destination, accept_code_change=bool(accept_code_change))

    run(work, show.repaired, as_json, debug, lambda found: int(not found["ok"]))


def vacuum(
    destination: Run,
    older_than: Annotated[
        str,
        typer.Option(
            help="Remove only files at least this old (90m, 2h, 7d); younger ones may belong to a live attempt."
        ),
    ] = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what killed attempts left behind: files that no commit names, temporary files, dangling uploads."""

    def work() -> Any:
        from tasks.vacuum_run import vacuum_run

        return vacuum_run(destination, older_than, dry_run=dry_run)

    run(work, show.vacuumed, as_json, debug)


def explain(
    destination: Run,
    row_id: Annotated[str, typer.Argument(metavar="ID", help="Row id, as in the column `id`.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how one row was made (attempt, process, seed, scores, timings), or why it was rejected."""

    def work() -> Any:
        from tasks.explain_row import explain_row

        return explain_row(destination, row_id)

    run(work, show.explained, as_json, debug)


def report(destination: Run, as_json: Json = False, debug: Debug = False) -> None:
    """Render the report of a finished run again."""

    def work() -> Any:
        from tasks.render_report import render_report

        return render_report(destination)

    run(work, show.report, as_json, debug)
