"""`bfr score`: the scores of faces that are restored already."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import Debug, Destination, Json, Metrics, Protocol, Source
from flows.cli.command import run as command


def score(
    source: Source,
    destination: Destination,
    column: Annotated[str, typer.Option(help="The restored faces.")] = "restored",
    lq_column: Annotated[str | None, typer.Option(help="What was restored, for the identity similarity to it.")] = None,
    gt_column: Annotated[str | None, typer.Option(help="Ground truth, for all other scores.")] = None,
    recogniser: Annotated[str, typer.Option(help="auto, arcface, adaface, dlib or none.")] = "auto",
    lpips: Annotated[str, typer.Option(help="auto, vgg, alex, squeeze or none.")] = "auto",
    metrics: Metrics = None,
    protocol: Protocol = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Scores restored faces of any origin, as a run scores its own: a row of scores for each row."""

    def work() -> Any:
        from tasks.config.score import ScoreRun
        from tasks.score_dataset import score_dataset

        return score_dataset(
            ScoreRun(
                source=source, destination=destination, column=column, lq_column=lq_column, gt_column=gt_column,
                recogniser=recogniser, lpips=lpips, metrics=tuple(metrics.split(",")) if metrics else (),
                protocol=protocol,
            )
        )  # fmt: skip

    command(work, show.score, as_json, debug)


Faces = Annotated[str, typer.Argument(help="Dataset, finished run, or .npz with mu and sigma; any fsspec URL.")]


def fid(
    a: Faces,
    b: Faces,
    features: Annotated[str, typer.Option(help="auto, inception, arcface, adaface or dlib.")] = "auto",
    preprocessing: Annotated[str, typer.Option(help="Of the Inception: pytorch-fid or clean-fid.")] = "pytorch-fid",
    column: Annotated[str | None, typer.Option(help="The picture column; `restored` or `image` by default.")] = None,
    kernel: Annotated[bool, typer.Option("--kernel", help="KID, precision and recall too.")] = False,
    save: Annotated[str | None, typer.Option(help="Write B's statistics there, as .npz.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fréchet distance between two datasets, runs or saved statistics: FID, or fd_<network>."""

    def work() -> Any:
        from tasks.measure_distance import measure_distance

        return measure_distance(
            a, b, features=features, preprocessing=preprocessing, column=column, kernel=kernel, save=save
        )

    command(work, show.fid, as_json, debug)
