"""`bfr review`: a page on this machine, on which people look at faces and decide."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from flows.cli import show_pictures
from flows.cli.command import run as command
from flows.cli.options import Debug, Json


def review(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A finished run, or the DST of `bfr reprocess`; any fsspec URL.")
    ],
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose decisions these are; by default the account's name.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; a free one by default.")] = 0,
    year_column: Annotated[
        str | None, typer.Option(help="Column with years or dates, to filter by decade; by default `year` or `date`.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at faces before and after, approve them, keep the original or have them redone. Each decision is kept."""

    def show(url: str) -> None:
        print(f"review: {url}", file=sys.stderr, flush=True)
        print("Only this machine can open it. Ctrl-C ends it; every decision is kept.", file=sys.stderr, flush=True)
        if open_:
            import webbrowser

            webbrowser.open(url)

    def work() -> Any:
        from tasks.review_run import review_run

        return review_run(run, reviewer=reviewer, port=port, year_column=year_column, show=show)

    command(work, show_pictures.reviewed, as_json, debug)
