"""`bfr evaluate`: its flags, to a run model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import Debug, Destination, Json, Metrics, Protocol, Source
from flows.cli.command import run as command


def evaluate(
    source: Source,
    destination: Destination,
    methods: Annotated[str, typer.Option(help="Comma-separated; the first is what the others are compared with.")],
    preset: Annotated[str | None, typer.Option(help="Of every method; each one's first by default.")] = None,
    degrade: Annotated[str | None, typer.Option(help="Degrade clean faces with this preset first.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize to this side before degrading, px.")] = None,
    column: Annotated[str, typer.Option(help="The picture column.")] = "image",
    gt_column: Annotated[str | None, typer.Option(help="Ground truth, where the source has its own.")] = None,
    recogniser: Annotated[str, typer.Option(help="auto, arcface, adaface, dlib or none.")] = "auto",
    lpips: Annotated[str, typer.Option(help="auto, vgg, alex, squeeze or none.")] = "auto",
    metrics: Metrics = None,
    protocol: Protocol = "default",
    fid_reference: Annotated[
        str | None, typer.Option(help="Compare faces with these: a dataset, a run, or .npz statistics.")
    ] = None,
    seed: int = 0,
    actors: Annotated[int | None, typer.Option(help="Workers; one per GPU, or one.")] = None,
    shard_rows: Annotated[int, typer.Option(help="Rows per shard, in whole row groups.")] = 32,
    engine: Annotated[str, typer.Option(help="ray, or local: threads of this process.")] = "ray",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restores the same rows with each method and compares: table, gallery, Markdown, LaTeX, JSON."""

    def work() -> Any:
        from tasks.config.evaluate import EvaluateRun

        run = EvaluateRun.model_validate(
            {
                "source": source, "destination": destination, "methods": methods.split(","), "preset": preset,
                "degrade": degrade, "size": size, "column": column, "gt_column": gt_column, "seed": seed,
                "recogniser": recogniser, "lpips": lpips, "metrics": metrics.split(",") if metrics else (),
                "protocol": protocol, "fid_reference": fid_reference,
                "actors": actors, "shard_rows": shard_rows, "engine": engine,
            }
        )  # fmt: skip
        from flows.evaluate_methods import evaluate_methods

        return evaluate_methods(run)

    command(work, show.evaluate, as_json, debug)
