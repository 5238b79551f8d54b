"""`bfr curate`: the best rows of a run as a dataset."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import Debug, Destination, Json, asked_for


def curate(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A finished run, or the DST of `bfr reprocess`; any fsspec URL.")
    ],
    destination: Destination,
    where: Annotated[str | None, typer.Option(help="SQL condition on the run's columns.")] = None,
    profile: Annotated[str | None, typer.Option(help="Ready-made quality gates: archive or training-set.")] = None,
    dedupe: Annotated[
        str | None,
        typer.Option(
            metavar="auto|COSINE",
            help="Drop near-duplicates: rows from this similarity on; auto: the mark measured for what is compared.",
        ),
    ] = None,
    dedupe_by: Annotated[
        str, typer.Option(help="What to compare: embedding, inception or perceptual; auto takes the first available.")
    ] = "auto",
    by: Annotated[str, typer.Option(help="Column to rank rows by.")] = "identity_similarity",
    ascending: Annotated[bool, typer.Option("--ascending", help="Rank the lowest value best.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Keep the N best rows.")] = None,
    stratify: Annotated[
        str | None, typer.Option(help="Column to balance: keep the same number of rows per value.")
    ] = None,
    per_stratum: Annotated[
        int | None, typer.Option(help="Rows to keep per value; by default as many as the rarest value has.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the stratified sample.")] = 0,
    format_: Annotated[str, typer.Option("--format", help="parquet, webdataset or folder.")] = "parquet",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a dataset of a finished run's best rows: filter, drop near-duplicates, balance, recompute statistics."""

    def work() -> Any:
        from tasks.config.curate import CurateRun
        from tasks.curate_run import curate_run

        return curate_run(asked_for(context, CurateRun))

    command(work, show.curate, as_json, debug)
