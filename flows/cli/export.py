"""`bfr export`: the files back that a run's images came from."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any, Literal, cast

import typer

from bfr_models.errors import unknown
from flows.cli import show_pictures
from flows.cli.command import run as command
from flows.cli.options import Debug, Json

SELECTIONS = ("changed", "approved")


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A finished run, or the DST of `bfr reprocess`; any fsspec URL.")
    ],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to write the files; any fsspec URL.")],
    only: Annotated[
        str | None, typer.Option(help="Export only these images: changed, or approved by `bfr review`.")
    ] = None,
    suffix: Annotated[
        str, typer.Option(help="Put into the names of changed images: `_new` makes a.jpg a_new.jpg.")
    ] = "",
    webdataset: Annotated[
        bool,
        typer.Option("--webdataset", help="Write tar files instead; a sample is an image and its JSON."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over files of the same names that are in DIR.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's images back as files: same tree, names, formats and metadata; unchanged ones byte for byte."""

    def work() -> Any:
        from flows.progress.bars import RowProgress
        from tasks.export_run import export_run

        if only not in (None, *SELECTIONS):
            raise unknown("selection", only, SELECTIONS)
        with ExitStack() as stack:
            lines: list[RowProgress] = []

            def show_rows(done: int, total: int) -> None:
                if not lines:
                    lines.append(stack.enter_context(RowProgress("export", total)))
                lines[0].reach(done)

            chosen = cast(Literal["changed", "approved"] | None, only)
            return export_run(
                run, folder, only=chosen, suffix=suffix, webdataset=webdataset, overwrite=overwrite, show=show_rows
            )

    command(work, show_pictures.export, as_json, debug, exit_code=lambda report: int(report["missing"] > 0))
