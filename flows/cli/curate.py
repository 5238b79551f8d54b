"""`bfr curate`: its flags, to a run model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import Debug, Destination, Json
from flows.cli.command import run as command


def curate(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A finished run, or `bfr reprocess`'s DST; any URL.")],
    destination: Destination,
    where: Annotated[str | None, typer.Option(help="SQL condition over the run's columns.")] = None,
    profile: Annotated[str | None, typer.Option(help="Ready-made quality gates: archive or training-set.")] = None,
    dedupe: Annotated[float | None, typer.Option(help="Cosine from which two rows are near-duplicates.")] = None,
    dedupe_by: Annotated[str, typer.Option(help="embedding, inception or perceptual; the first there is.")] = "auto",
    by: Annotated[str, typer.Option(help="Column that says which rows are better.")] = "identity_similarity",
    ascending: Annotated[bool, typer.Option("--ascending", help="The lowest value is the best.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Keep the best so many.")] = None,
    stratify: Annotated[str | None, typer.Option(help="Column: as many rows of each of its values.")] = None,
    per_stratum: Annotated[int | None, typer.Option(help="Rows of each value; as many as the rarest has.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    form: Annotated[str, typer.Option("--format", help="parquet, webdataset or folder.")] = "parquet",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The best rows of a finished run as a dataset: filtered, without near-duplicates, its statistics computed anew."""

    def work() -> Any:
        from tasks.config.curate import CurateRun
        from tasks.curate_run import curate_run

        return curate_run(
            CurateRun.model_validate(
                {
                    "source": source, "destination": destination, "where": where, "profile": profile,
                    "dedupe": dedupe, "dedupe_by": dedupe_by, "by": by, "ascending": ascending, "top_k": top_k,
                    "stratify": stratify, "per_stratum": per_stratum, "seed": seed, "format": form,
                }
            )
        )  # fmt: skip

    command(work, show.curate, as_json, debug)
