"""The `bfr` command: arguments to run models to flows. No logic of its own.

Every verb writes its result to standard output (with --json as one document), all else to standard error.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows import _show, _weights_cli
from flows._command import Debug, Json
from flows._command import run as _run
from tasks.config import DegradeRun, RestoreRun

app = typer.Typer(
    name="bfr",
    help="Blind face restoration at archive scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(_weights_cli.app, name="weights")

Source = Annotated[str, typer.Argument(metavar="SRC", help="Dataset: a folder, a glob or one file; any fsspec URL.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Where to write; any fsspec URL.")]


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

    _run(work, _show.demo, as_json, debug)


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
        from tasks.pack_pictures import pack as pack_pictures

        return dataclasses.asdict(pack_pictures(source, destination, rows_per_file, row_group_rows, column))

    _run(work, _show.pack, as_json, debug)


@app.command(epilog="Example: `bfr degrade faces/ pairs/ --preset gfpgan --size 128 --seed 0`")
def degrade(
    source: Source,
    destination: Destination,
    preset: Annotated[str, typer.Option(help="gfpgan, difface or codeformer_large.")] = "gfpgan",
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

    _run(work, _show.degrade, as_json, debug)


@app.command(epilog="Example: `bfr restore pairs/ out/ --method difface --gt-column gt`")
def restore(
    source: Source,
    destination: Destination,
    method: Annotated[str | None, typer.Option(help="See `bfr methods`.")] = None,
    preset: Annotated[str | None, typer.Option(help="Named size and weights of the method.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with any of these settings; flags win.")] = None,
    steps: Annotated[int | None, typer.Option(help="Network calls of a diffusion method.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim or dpm++.")] = None,
    start_timestep: Annotated[int | None, typer.Option(help="DifFace's N.")] = None,
    eta: Annotated[float | None, typer.Option(help="Noise per step: 0 (faithful) to 1.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    column: Annotated[str | None, typer.Option(help="The picture column; `image` by default.")] = None,
    gt_column: Annotated[str | None, typer.Option(help="Ground truth, for PSNR, SSIM and identity.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    image_format: Annotated[str | None, typer.Option("--format", help="png, webp or jpeg.")] = None,
    quality: Annotated[int | None, typer.Option(help="Of webp and jpeg, 1 to 100.")] = None,
    keep_input: Annotated[bool | None, typer.Option("--keep-input", help="Carry the input picture.")] = None,
    min_identity: Annotated[float | None, typer.Option(help="Below it a face keeps its input pixels.")] = None,
    max_rejects: Annotated[float | None, typer.Option(help="Share of rejects above which the exit code is 3.")] = None,
    actors: Annotated[int | None, typer.Option(help="Workers; one per GPU, or one.")] = None,
    gpus_per_actor: Annotated[float | None, typer.Option()] = None,
    batch_size: Annotated[str, typer.Option(help="Faces per network call, or auto.")] = "auto",
    shard_rows: Annotated[int | None, typer.Option(help="Rows per shard, in whole row groups.")] = None,
    engine: Annotated[str | None, typer.Option(help="ray, or local: threads of this process.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Restore nothing: count, time a sample, estimate.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restores every face of a dataset. Running it again resumes; a finished run is a no-op."""
    options = {
        "steps": steps, "sampler": sampler, "start_timestep": start_timestep, "eta": eta, "precision": precision,
    }  # fmt: skip
    given = {
        "source": source, "destination": destination, "method": method, "preset": preset, "column": column,
        "gt_column": gt_column, "seed": seed, "format": image_format, "quality": quality, "keep_input": keep_input,
        "min_identity": min_identity, "max_rejects": max_rejects, "actors": actors,
        "gpus_per_actor": gpus_per_actor, "batch_size": None if batch_size == "auto" else batch_size,
        "shard_rows": shard_rows, "engine": engine,
    }  # fmt: skip

    def estimate() -> Any:
        from tasks.estimate_run import estimate_run

        return estimate_run(_restore_run(config, given, options))

    def work() -> Any:
        run = _restore_run(config, given, options)
        from tasks.plan_shards import check_settings

        check_settings(run)  # before Prefect and Ray start
        from flows.restore_dataset import restore_dataset_anyway

        return restore_dataset_anyway(run)

    if plan:
        _run(estimate, _show.estimate, as_json, debug)
    _run(work, _show.restore, as_json, debug, exit_code=_too_many_rejects)


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

    _run(work, _show.methods, as_json, debug)


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """What this machine can and cannot do, and what to do about it."""

    def work() -> Any:
        from tasks.check_machine import check_machine

        return [dataclasses.asdict(check) for check in check_machine()]

    _run(work, _show.doctor, as_json, debug, exit_code=lambda checks: int(any(c["state"] == "bad" for c in checks)))


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
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Trains one component of one method."""

    def work() -> Any:
        from tasks.train_component import train_component

        settings = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "workers": workers}
        return train_component(
            method, component, preset, data, out, device=device, seed=seed, resume=resume, **settings
        )

    _run(work, _show.train, as_json, debug)


def _restore_run(config: Path | None, given: dict[str, Any], options: dict[str, Any]) -> RestoreRun:
    """The run model from a YAML file and the flags that were given, which win."""
    from_file: dict[str, Any] = {}
    if config is not None:
        import yaml

        try:
            from_file = yaml.safe_load(config.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"expected a YAML file of settings at {config}, found: {error}") from None
        if not isinstance(from_file, dict) or not isinstance(from_file.get("options", {}), dict):
            raise UsageError(f"expected a YAML file of settings at {config} (name: value), found other YAML")
    flags = {name: value for name, value in given.items() if value is not None}
    chosen = {name: value for name, value in options.items() if value is not None}
    return RestoreRun(**{**from_file, **flags, "options": {**from_file.get("options", {}), **chosen}})


def _too_many_rejects(record: dict[str, Any]) -> int:
    totals, limit = record["totals"], record["arguments"]["max_rejects"]
    return 3 if totals["rejected"] > limit * totals["rows"] else 0


def main() -> None:
    """The entry point `bfr`."""
    app()
