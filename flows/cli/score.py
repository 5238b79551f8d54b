"""`bfr score` and `bfr fid`: measure faces that are already restored."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import (
    Debug,
    Destination,
    Json,
    Lpips,
    Metrics,
    Overwrite,
    Protocol,
    Recogniser,
    Source,
    asked_for,
)

FACES_HELP = "Dataset, finished run, or .npz with mu and sigma; any fsspec URL."


def score(
    context: typer.Context,
    source: Source,
    destination: Destination,
    column: Annotated[str, typer.Option(help="Column with the restored faces.")] = "restored",
    lq_column: Annotated[
        str | None, typer.Option(help="Column with the degraded inputs, for identity similarity to the input.")
    ] = None,
    gt_column: Annotated[str | None, typer.Option(help="Column with the ground truth, for all other scores.")] = None,
    recogniser: Recogniser = None,
    lpips: Lpips = None,
    metrics: Metrics = None,
    protocol: Protocol = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score faces restored by any tool, the way a run scores its own; writes one row of scores per row."""

    def work() -> Any:
        from tasks.config.score import ScoreRun
        from tasks.runs.early import check_score

        run = asked_for(context, ScoreRun)
        check_score(run)  # before torch is imported
        from tasks.score_dataset import score_dataset

        return score_dataset(run)

    command(work, show.score, as_json, debug)


def fid(
    a: Annotated[str, typer.Argument(metavar="A", help=FACES_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help=FACES_HELP)],
    features: Annotated[
        str,
        typer.Option(
            help="Network for the features: inception, arcface, adaface or dlib; auto takes the first available."
        ),
    ] = "auto",
    preprocessing: Annotated[
        str, typer.Option(help="Inception preprocessing: pytorch-fid or clean-fid.")
    ] = "pytorch-fid",
    column: Annotated[str | None, typer.Option(help="Image column; `restored` or `image` by default.")] = None,
    kernel: Annotated[bool, typer.Option("--kernel", help="Also compute KID, precision and recall.")] = False,
    save: Annotated[str | None, typer.Option(help="Write B's statistics to this .npz file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another file at --save.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure the Fréchet distance between two datasets, runs or saved statistics: FID, or `fd_<network>`."""

    def work() -> Any:
        from tasks.measure_distance import measure_distance

        return measure_distance(
            a,
            b,
            features=features,
            preprocessing=preprocessing,
            column=column,
            kernel=kernel,
            save=save,
            overwrite=overwrite,
        )

    command(work, show.fid, as_json, debug)
