"""`bfr train`: one network of one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import Debug, Json


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method, such as difface.")],
    component: Annotated[str, typer.Argument(metavar="COMPONENT", help="A network of the method, such as prior.")],
    data: Annotated[str, typer.Option(help="Parquet dataset of aligned faces; any fsspec URL.")],
    out: Annotated[str, typer.Option(help="Folder for weights, checkpoint, metrics and samples; any fsspec URL.")],
    preset: Annotated[str, typer.Option(help="Preset of the method, which sets the size.")] = "face128",
    steps: Annotated[int | None, typer.Option(help="Training steps; the recipe's by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Faces per step; the recipe's by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate; the recipe's by default.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.")] = 1,
    device: Annotated[str | None, typer.Option(help="Torch device; cuda if there is one, else cpu.")] = None,
    perceptual: Annotated[Path | None, typer.Option(help="SqueezeNet 1.1 weights, for perceptual losses.")] = None,
    recogniser: Annotated[Path | None, typer.Option(help="MobileFace weights, for identity losses.")] = None,
    irm_low: Annotated[
        Path | None, typer.Option(help="Weights of DiffBFR's first model, to train its second model on top of it.")
    ] = None,
    initial: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the training.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the checkpoint in --out.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train one network of a method."""

    def work() -> Any:
        from tasks.train_component import train_component

        settings: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        settings |= {"workers": workers, "device": device, "perceptual": perceptual, "seed": seed, "resume": resume}
        settings |= {"recogniser": recogniser, "irm_low": irm_low, "initial": initial}
        return train_component(method, component, preset, data, out, **settings)

    command(work, show.train, as_json, debug)
