"""`bfr demo`, `bfr pack` and `bfr degrade`: datasets to work on."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from bfr_models.registry import resolve_method
from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import Debug, Destination, ImageColumn, Json, Overwrite, Source, asked_for
from flows.orchestration.early_server import start_server
from tasks.storage.waits import say

RowsPerFile = Annotated[int, typer.Option(min=1, help="Rows per Parquet file.")]
RowGroupRows = Annotated[int, typer.Option(min=1, help="Rows per row group.")]


def demo(
    out: Annotated[str, typer.Option(help="Folder for the dataset, the runs and the report.")] = "demo",
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Methods; by default the three of the papers.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Degrade two real portraits with several seeds, restore them with every method, and write a report."""

    def work() -> Any:
        from tasks.storage.store import Store

        chosen = methods.split(",") if methods else None
        for name in chosen or ():
            resolve_method(name)  # before Prefect and Ray start
        Store(out).require_writable()
        say("starting Prefect")
        start_server()
        from flows.run_demo import run_demo_with_fallback

        return run_demo_with_fallback(out, chosen)

    command(work, show.demo, as_json, debug)


def pack(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, .zip, .tar, WebDataset or Parquet with images.")
    ],
    destination: Destination,
    rows_per_file: RowsPerFile = 5000,
    row_group_rows: RowGroupRows = 32,
    column: Annotated[str, typer.Option(help="Image column, if the source is Parquet.")] = "image",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of SRC; only if you trust who made it.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Pack images into sharded Parquet, one row per image, broken ones included."""

    def work() -> Any:
        from tasks.pack_pictures import pack_pictures

        report = pack_pictures(
            source, destination, rows_per_file, row_group_rows, column, follow_links=follow_links, overwrite=overwrite
        )
        return dataclasses.asdict(report)

    command(work, show.pack, as_json, debug)


def degrade(
    context: typer.Context,
    source: Source,
    destination: Destination,
    preset: Annotated[
        str,
        typer.Option(
            help="gfpgan, difface, codeformer_large (face crops down to 64, 16 and 17 px), archive, gfpgan_extreme, "
            "difface_extreme; difface_test or resshift_test, the papers' test sets."
        ),
    ] = "gfpgan",
    size: Annotated[int | None, typer.Option(help="Resize to this side, in pixels, first.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the degradations.")] = 0,
    column: ImageColumn = "image",
    rows_per_file: RowsPerFile = 5000,
    row_group_rows: RowGroupRows = 32,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make (lq, gt) pairs from clean faces with a paper's degradations, seeded per row."""

    def work() -> Any:
        from tasks.config.degrade import DegradeRun
        from tasks.runs.early import check_degrade

        run = asked_for(context, DegradeRun)
        check_degrade(run)  # before torch is imported
        from tasks.degrade_dataset import degrade_dataset

        return dataclasses.asdict(degrade_dataset(run))

    command(work, show.degrade, as_json, debug)
