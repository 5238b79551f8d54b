"""`bfr restore`: its flags, and its exit code."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import show
from flows.cli.check_run import checked, finished
from flows.cli.command import run as command
from flows.cli.options import (
    AcceptCodeChange,
    Actors,
    AllowOpenCluster,
    Config,
    Debug,
    Destination,
    Engine,
    FidReference,
    Json,
    Lpips,
    Method,
    Metrics,
    PresetName,
    Protocol,
    Recogniser,
    ResizeBack,
    ShardRows,
    SourceOrFiles,
    asked_for,
)
from flows.orchestration.early_server import start_server
from tasks.config.restore import RestoreRun
from tasks.runs.outcomes import rejects_too_many, standing_rejects, standing_rows
from tasks.storage.waits import say

if TYPE_CHECKING:
    from tasks.runs.record import RunRecord

_log = logging.getLogger(__name__)


def restore(
    context: typer.Context,
    source: SourceOrFiles,
    destination: Destination,
    method: Method = None,
    preset: PresetName = None,
    config: Config = None,
    fidelity: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="How close to what the face shows: 1 stays closest, 0 draws most freely; 0.5: the preset.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Network calls per face, for diffusion methods; of DiffBFR's first chain.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler of a diffusion method: ddim or dpm++.")] = None,
    start_timestep: Annotated[
        int | None,
        typer.Option(help="Timestep DifFace starts from, the paper's N; the highest one where faces have their own."),
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Noise per sampling step, from 0 (most faithful) to 1.")] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="rows (default): each row draws its own noise; authors: as DifFace's script, one stream of --seed for "
            "the rows of each file in their order, so that a face depends on its place there."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the networks: fp32, bf16, fp16, or auto: bf16 on a CPU that multiplies it by itself "
            "(AMX, AVX-512), else fp32. Default: fp32."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="restore (default), or inpaint: fill the masked holes, change nothing else.")
    ] = None,
    mask_column: Annotated[
        str | None, typer.Option(help="Column with masks for inpainting: white is damage, black is kept.")
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="auto (default): by the first rows; faces: aligned squares; photos: find, restore, paste back.",
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Detector for photos: dlib (default) or retinaface.")] = None,
    detector_weights: Annotated[
        str | None, typer.Option(help="Detector weights file; defaults to the fetched one.")
    ] = None,
    min_face: Annotated[
        int | None, typer.Option(help="Smallest face square to restore in a photo, in pixels; 32 by default.")
    ] = None,
    max_faces: Annotated[int | None, typer.Option(help="Most faces to restore per photo; 500 by default.")] = None,
    select: Annotated[
        str | None,
        typer.Option(metavar="ASSESSMENT", help="Restore only what `bfr assess` found to gain; or Parquet with ids."),
    ] = None,
    select_where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Select by this condition on the assessment's columns instead."),
    ] = None,
    redo: Annotated[
        bool,
        typer.Option("--redo", help="SRC is a run: restore again what its review has marked for that."),
    ] = False,
    upscale: Annotated[
        str | None,
        typer.Option(metavar="2|4|auto", help="Write photos larger; auto: as large as their faces have detail."),
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="What enlarges the photo around the faces: lanczos (default) or realesrgan.")
    ] = None,
    reject_no_face: Annotated[
        bool | None,
        typer.Option("--reject-no-face", help="Reject photos without a face; otherwise they pass through unchanged."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Image column; `image` by default.")] = None,
    gt_column: Annotated[
        str | None, typer.Option(help="Column with the ground truth, for PSNR, SSIM and identity.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the run; 0 by default.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Format of restored images: png (default), webp or jpeg.")
    ] = None,
    quality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="draft|standard|best|1..100",
            help="Network calls a face gets, standard by default (in a --config file: effort); or, as a number, the "
            "quality of webp and jpeg, 95 by default (in a file: quality). May be given once as each.",
        ),
    ] = None,
    keep_input: Annotated[bool | None, typer.Option("--keep-input", help="Copy the input image to the output.")] = None,
    recogniser: Recogniser = None,
    min_identity: Annotated[
        str | None,
        typer.Option(
            metavar="COSINE|PROFILE",
            help="Similarity to the input below which a face keeps its input pixels; profiles are celeba, lfw, "
            "childhood, wild and webphoto.",
        ),
    ] = None,
    max_harm: Annotated[
        float | None,
        typer.Option(
            help="Share of all faces that may come out worse than they went in; 0.02 by default; 1 replaces every face."
        ),
    ] = None,
    min_gain: Annotated[
        float | None, typer.Option(help="Expected gain from which a face is restored, 0 to 1; 0.02 by default.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Size of restored faces: the input's (default), or the network's own.")
    ] = None,
    resize_back: ResizeBack = None,
    grain: Annotated[
        str | None, typer.Option(help="keep (default): restored faces get their photo's grain; clean: they do not.")
    ] = None,
    lpips: Lpips = None,
    metrics: Metrics = None,
    protocol: Protocol = None,
    fid: Annotated[
        str | None, typer.Option(help="Network for FID: inception (default if its weights are here) or none.")
    ] = None,
    fid_reference: FidReference = None,
    keep_embeddings: Annotated[
        bool | None, typer.Option("--keep-embeddings", help="Store face embeddings, which are biometric data.")
    ] = None,
    max_rejects: Annotated[
        float | None, typer.Option(help="Share of rejected rows above which the exit code is 3; 0.05 by default.")
    ] = None,
    retry_rejected: Annotated[
        str | None, typer.Option(metavar="CODE,...", help="Retry rows that were rejected with these codes.")
    ] = None,
    deep: Annotated[
        bool | None, typer.Option("--deep", help="Check the sha256 of what is done first, not only presence and size.")
    ] = None,
    accept_code_change: AcceptCodeChange = None,
    shard_timeout: Annotated[
        float | None, typer.Option(help="Seconds until a worker counts as hung; 20 x the longest shard by default.")
    ] = None,
    start_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a first worker may take to be ready; 600 by default.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto (default: GPUs if there are some now), cpu, or cuda: a cluster waits for GPUs."),
    ] = None,
    actors: Actors = None,
    min_actors: Annotated[
        int | None, typer.Option(help="Workers to ask the cluster for, with or without room for them; 1 by default.")
    ] = None,
    max_actors: Annotated[int | None, typer.Option(help="Workers at most; by default as many as fit.")] = None,
    gpus_per_actor: Annotated[float | None, typer.Option(help="GPUs per worker; 0.5 puts two on each GPU.")] = None,
    cpus_per_actor: Annotated[
        float | None, typer.Option(help="CPUs per worker; without GPUs a worker has a whole node by default.")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="Faces per network call; 8 by default, 16 on a GPU; auto finds what is fastest and fits."),
    ] = None,
    shard_rows: ShardRows = None,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write when each worker was in which stage, for ui.perfetto.dev.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve the run's figures for Prometheus on this port; off by default.")
    ] = None,
    metrics_address: Annotated[
        str | None, typer.Option(help="Address that they are served on; 127.0.0.1 by default.")
    ] = None,
    allow_open_cluster: AllowOpenCluster = None,
    engine: Engine = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Restore nothing: count rows, time a sample, estimate the run.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore every face of a dataset. Running it again resumes; a finished run is a no-op."""

    def asked() -> RestoreRun:
        if not redo:
            return asked_for(context, RestoreRun, config)
        from tasks.runs.redo import redo_settings

        return asked_for(context, RestoreRun, config, change=redo_settings)

    def estimate() -> Any:
        resolved = checked(asked())
        say("timing a sample")
        from tasks.estimate_run import estimate_run

        return estimate_run(resolved)

    def work() -> Any:
        server = cache(_start_prefect)
        resolved = checked(asked(), server)
        if (record := finished(resolved)) is not None:
            return record
        is_ours = server()
        from flows.orchestration.early_start import early_start

        with early_start(resolved) if is_ours else nullcontext():  # else a failure belongs on the API's page
            from flows.restore_dataset import restore_dataset_with_fallback

            return restore_dataset_with_fallback(resolved.run)

    if plan:
        command(estimate, show.estimate, as_json, debug)
    command(work, show.restore, as_json, debug, exit_code=too_many_rejects)


def _start_prefect() -> bool:
    say("starting Prefect")
    return start_server()


def too_many_rejects(record: RunRecord) -> int:
    """The exit code of a finished run: 3, which explains itself, if it rejected more rows than allowed."""
    if not rejects_too_many(record):
        return 0
    rejected, rows = sum(standing_rejects(record).values()), standing_rows(record)
    _log.warning(
        "exit code 3: %d of %d rows were rejected (%.1f %%), more than --max-rejects %g allows; all others are done. "
        "The reasons are in %s/rejected and in the report; mend the images, or allow more",
        rejected,
        rows,
        100 * rejected / rows,
        record["arguments"]["max_rejects"],
        record["arguments"]["destination"],
    )
    return 3
