"""`bfr restore`: its flags and its settings file, to a run model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows.cli import show
from flows.cli.command import PROTOCOL_HELP, Debug, Destination, Json, Metrics, Source
from flows.cli.command import run as command
from tasks.config.restore import RestoreRun


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
    task: Annotated[str | None, typer.Option(help="restore, or inpaint: fill holes, keep all else.")] = None,
    mask_column: Annotated[str | None, typer.Option(help="Masks of inpaint: white is scratched, black known.")] = None,
    input_: Annotated[
        str | None, typer.Option("--input", help="faces: aligned squares; photos: found, restored, pasted back.")
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Of faces in photos: dlib or retinaface.")] = None,
    detector_weights: Annotated[str | None, typer.Option(help="Its file; the fetched one by default.")] = None,
    min_face: Annotated[int | None, typer.Option(help="Smallest face square to restore in a photo, px.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Most faces to restore in one photo.")] = None,
    reject_no_face: Annotated[
        bool | None, typer.Option("--reject-no-face", help="Reject photos without a face; they pass through else.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The picture column; `image` by default.")] = None,
    gt_column: Annotated[str | None, typer.Option(help="Ground truth, for PSNR, SSIM and identity.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    image_format: Annotated[str | None, typer.Option("--format", help="png, webp or jpeg.")] = None,
    quality: Annotated[int | None, typer.Option(help="Of webp and jpeg, 1 to 100.")] = None,
    keep_input: Annotated[bool | None, typer.Option("--keep-input", help="Carry the input picture.")] = None,
    recogniser: Annotated[str | None, typer.Option(help="auto, arcface, adaface, dlib or none.")] = None,
    min_identity: Annotated[
        str | None,
        typer.Option(
            metavar="COSINE|PROFILE",
            help="Below it a face keeps its input pixels; profiles are celeba, lfw, childhood, wild and webphoto.",
        ),
    ] = None,
    lpips: Annotated[str | None, typer.Option(help="vgg, alex, squeeze or none.")] = None,
    metrics: Metrics = None,
    protocol: Annotated[str | None, typer.Option(help=PROTOCOL_HELP)] = None,
    fid: Annotated[str | None, typer.Option(help="inception or none.")] = None,
    fid_reference: Annotated[
        str | None, typer.Option(help="Compare restored faces with these: a dataset, a run, or .npz statistics.")
    ] = None,
    keep_embeddings: Annotated[
        bool | None, typer.Option("--keep-embeddings", help="Store the recogniser's vectors: biometric data.")
    ] = None,
    max_rejects: Annotated[float | None, typer.Option(help="Share of rejects above which the exit code is 3.")] = None,
    retry_rejected: Annotated[
        str | None, typer.Option(metavar="CODE,...", help="Try rows again that were rejected with these codes.")
    ] = None,
    shard_timeout: Annotated[float | None, typer.Option(help="Seconds until a worker is taken to hang.")] = None,
    actors: Annotated[int | None, typer.Option(help="Workers; one per GPU, or one.")] = None,
    gpus_per_actor: Annotated[float | None, typer.Option()] = None,
    batch_size: Annotated[str | None, typer.Option(help="Faces per network call, or auto: what fits.")] = None,
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
        "source": source, "destination": destination, "method": method, "preset": preset, "input": input_,
        "detector": detector, "detector_weights": detector_weights, "min_face": min_face, "max_faces": max_faces,
        "reject_no_face": reject_no_face, "task": task, "column": column, "mask_column": mask_column,
        "gt_column": gt_column, "seed": seed, "format": image_format, "quality": quality, "keep_input": keep_input,
        "metrics": metrics.split(",") if metrics else None, "protocol": protocol,
        "lpips": lpips, "fid": fid, "fid_reference": fid_reference, "keep_embeddings": keep_embeddings,
        "recogniser": recogniser, "min_identity": min_identity, "max_rejects": max_rejects, "actors": actors,
        "retry_rejected": retry_rejected.split(",") if retry_rejected else None, "shard_timeout": shard_timeout,
        "gpus_per_actor": gpus_per_actor, "batch_size": batch_size,
        "shard_rows": shard_rows, "engine": engine,
    }  # fmt: skip

    def estimate() -> Any:
        from tasks.config.resolve import resolve_run
        from tasks.estimate_run import estimate_run

        return estimate_run(resolve_run(restore_run(config, given, options)))

    def work() -> Any:
        run = restore_run(config, given, options)
        from tasks.config.resolve import resolve_run
        from tasks.runs.spec import check_destination
        from tasks.storage.store import Store

        check_destination(resolve_run(run), Store(run.destination))  # before Prefect and Ray start
        from flows.restore_dataset import restore_dataset_with_fallback

        return restore_dataset_with_fallback(run)

    if plan:
        command(estimate, show.estimate, as_json, debug)
    command(work, show.restore, as_json, debug, exit_code=too_many_rejects)


def restore_run(config: Path | None, given: dict[str, Any], options: dict[str, Any]) -> RestoreRun:
    """The run model from a YAML file and the flags that were given, which win."""
    return RestoreRun(**run_settings(config, given, options))


def run_settings(config: Path | None, given: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run model, from the same."""
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
    return {**from_file, **flags, "options": {**from_file.get("options", {}), **chosen}}


def too_many_rejects(record: dict[str, Any]) -> int:
    """The exit code of a run that is done."""
    totals, limit = record["totals"], record["arguments"]["max_rejects"]
    return 3 if totals["rejected"] > limit * totals["rows"] else 0
