"""The `bfr` command: arguments to run models to flows. No logic of its own.

Every verb writes its result to standard output (with --json as one document), all else to standard error.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import generations, runs, show, weights
from flows.cli.command import Debug, Destination, Json, Source
from flows.cli.command import run as _run
from flows.cli.curate import curate
from flows.cli.evaluate import evaluate
from flows.cli.reprocess import deploy, reprocess
from flows.cli.restore import restore
from flows.cli.score import fid, score
from tasks.config.degrade import DegradeRun

app = typer.Typer(
    name="bfr",
    help="Blind face restoration at archive scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(weights.app, name="weights")
app.add_typer(generations.app, name="generations")


@app.command(epilog="Example: `bfr demo --out demo`")
def demo(
    out: Annotated[str, typer.Option(help="Folder for the datasets, the runs and the report.")] = "demo",
    methods: Annotated[str | None, typer.Option(help="Methods, comma-separated; all papers' by default.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restores two real portraits, degraded many times, with every method, and reports."""

    def work() -> Any:
        from flows.run_demo import run_demo

        return run_demo(out, methods.split(",") if methods else None)

    _run(work, show.demo, as_json, debug)


@app.command(epilog="Example: `bfr pack scans/ s3://archive/faces`")
def pack(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder, .zip, .tar, WebDataset or Parquet.")],
    destination: Destination,
    rows_per_file: Annotated[int, typer.Option(min=1)] = 5000,
    row_group_rows: Annotated[int, typer.Option(min=1)] = 32,
    column: Annotated[str, typer.Option(help="The picture column, of Parquet.")] = "image",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Packs pictures into sharded Parquet, every one of them, broken ones too."""

    def work() -> Any:
        from tasks.pack_pictures import pack_pictures

        return dataclasses.asdict(pack_pictures(source, destination, rows_per_file, row_group_rows, column))

    _run(work, show.pack, as_json, debug)


@app.command(epilog="Example: `bfr degrade faces/ pairs/ --preset gfpgan --size 128 --seed 0`")
def degrade(
    source: Source,
    destination: Destination,
    preset: Annotated[
        str, typer.Option(help="gfpgan, difface, codeformer_large; of test sets difface_test, resshift_test.")
    ] = "gfpgan",
    size: Annotated[int | None, typer.Option(help="Resize to this side first, px.")] = None,
    seed: int = 0,
    column: Annotated[str, typer.Option(help="The picture column.")] = "image",
    rows_per_file: Annotated[int, typer.Option(min=1)] = 5000,
    row_group_rows: Annotated[int, typer.Option(min=1)] = 32,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Makes (lq, gt) pairs of clean faces, with a paper's degradations, seeded per row."""

    def work() -> Any:
        from tasks.degrade_dataset import degrade_dataset

        run = DegradeRun(
            source=source,
            destination=destination,
            preset=preset,
            size=size,
            seed=seed,
            column=column,
            rows_per_file=rows_per_file,
            row_group_rows=row_group_rows,
        )
        return dataclasses.asdict(degrade_dataset(run))

    _run(work, show.degrade, as_json, debug)


app.command(epilog="Examples: `bfr restore pairs/ out/ --method difface --gt-column gt`; `--input photos`")(restore)

app.command(epilog="Example: `bfr evaluate faces/ out/ --methods passthrough,estimator,difface --degrade gfpgan`")(
    evaluate
)


app.command(epilog="Example: `bfr curate restored/ best/ --where 'identity_similarity > 0.9' --dedupe 0.95`")(curate)


app.command(epilog="Example: `bfr reprocess s3://inbox s3://archive/restored --method difface`")(reprocess)
app.command(epilog='Example: `bfr deploy s3://inbox s3://archive/restored --method difface --cron "0 3 * * *"`')(deploy)


app.command(epilog="Example: `bfr verify s3://archive/restored --json`")(runs.verify)
app.command(epilog="Example: `bfr vacuum s3://archive/restored --older-than 1d --dry-run`")(runs.vacuum)
app.command(epilog="Example: `bfr explain restored/ faces.parquet#17`")(runs.explain)
app.command(epilog="Example: `bfr report restored/`")(runs.report)

app.command(epilog="Examples: `bfr fid out/ faces/`; `bfr fid out/ ffhq.npz --features inception`")(fid)


app.command(epilog="Example: `bfr score theirs/ scores/ --column output --lq-column input --gt-column gt`")(score)


@app.command()
def methods(as_json: Json = False, debug: Debug = False) -> None:
    """The table of methods and presets."""

    def work() -> Any:
        from bfr_models.registry import methods as table

        return [
            {
                "name": spec.name,
                "paper": spec.paper,
                "summary": spec.summary,
                "presets": [{"name": p.name, "size": p.size, "licence": p.licence} for p in spec.presets],
            }
            for spec in table().values()
        ]

    _run(work, show.methods, as_json, debug)


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """What this machine can and cannot do, and what to do about it."""

    def work() -> Any:
        from tasks.check_machine import check_machine

        return [dataclasses.asdict(check) for check in check_machine()]

    _run(work, show.doctor, as_json, debug, exit_code=lambda checks: int(any(c["state"] == "bad" for c in checks)))


@app.command(epilog="Example: `bfr train difface prior --data faces/ --out runs/prior`")
def train(
    method: Annotated[str, typer.Argument(metavar="METHOD")],
    component: Annotated[str, typer.Argument(metavar="COMPONENT")],
    data: Annotated[str, typer.Option(help="Parquet of aligned faces; any fsspec URL.")],
    out: Annotated[str, typer.Option(help="Folder for weights, checkpoint, metrics and samples; any fsspec URL.")],
    preset: str = "face128",
    steps: Annotated[int | None, typer.Option(help="The recipe's by default.")] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.")] = 1,
    device: Annotated[str | None, typer.Option(help="cuda where there is one, else cpu.")] = None,
    perceptual: Annotated[Path | None, typer.Option(help="SqueezeNet 1.1's weights, for perceptual losses.")] = None,
    recogniser: Annotated[Path | None, typer.Option(help="A MobileFace's weights, for losses on identity.")] = None,
    irm_low: Annotated[Path | None, typer.Option(help="DiffBFR's first model, to train its second behind it.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Trains one component of one method."""

    def work() -> Any:
        from tasks.train_component import train_component

        settings: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        settings |= {"workers": workers, "device": device, "perceptual": perceptual, "seed": seed, "resume": resume}
        settings |= {"recogniser": recogniser, "irm_low": irm_low, "initial": initial}
        return train_component(method, component, preset, data, out, **settings)

    _run(work, show.train, as_json, debug)


def main() -> None:
    """The entry point `bfr`."""
    app()
