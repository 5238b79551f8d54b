"""`bfr train`: one network of one method."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import Debug, Json, asked_for


def train(
    context: typer.Context,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method, such as difface.")],
    component: Annotated[str, typer.Argument(metavar="COMPONENT", help="A network of the method, such as prior.")],
    data: Annotated[str, typer.Option(help="Parquet dataset of aligned faces; any fsspec URL.")],
    out: Annotated[str, typer.Option(help="Folder for weights, checkpoint, metrics and samples; any fsspec URL.")],
    preset: Annotated[str, typer.Option(help="Preset of the method, which sets the size.")] = "face128",
    workers: Annotated[int, typer.Option(help="Processes that share each batch, started by Ray if several.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Training steps; the recipe's by default.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Faces per step, of all workers; the recipe's by default.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate; the recipe's by default.")] = None,
    accumulate: Annotated[int, typer.Option(help="Parts that a worker takes its share of a batch in.")] = 1,
    precision: Annotated[str, typer.Option(help="bf16 (autocast), fp32, or auto: fp32 on CPUs without bf16.")] = "auto",
    loaders: Annotated[int, typer.Option(help="Processes of each worker that prepare faces.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto: cuda where each worker has one.")] = "auto",
    log_every: Annotated[int, typer.Option(help="Steps between two lines of progress.")] = 20,
    evaluate_every: Annotated[int, typer.Option(help="Steps between two looks at held-out faces.")] = 500,
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between two checkpoints.")] = 10.0,
    perceptual: Annotated[
        str | None, typer.Option(help="SqueezeNet 1.1 weights, for perceptual losses; any URL.")
    ] = None,
    recogniser: Annotated[str | None, typer.Option(help="MobileFace weights, for identity losses; any URL.")] = None,
    irm_low: Annotated[
        str | None, typer.Option(help="Weights of DiffBFR's first model, to train its second model on top of it.")
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(help="Weights of the regression network that DiffBFR's chains start from, or face256 draws on."),
    ] = None,
    initial: Annotated[str | None, typer.Option(help="Weights to start from; any fsspec URL.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the training.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the checkpoint in --out.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train one network of a method."""

    def work() -> Any:
        from tasks.config.train import TrainRun

        run = asked_for(context, TrainRun)
        from flows.train_network import train_where_configured

        return train_where_configured(run)

    command(work, show.train, as_json, debug)
