"""`bfr evaluate`: several methods on the same rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run as command
from flows.cli.options import (
    Actors,
    AllowOpenCluster,
    Debug,
    Destination,
    Engine,
    FidReference,
    ImageColumn,
    Json,
    Lpips,
    Metrics,
    Overwrite,
    Protocol,
    Recogniser,
    ResizeBack,
    ShardRows,
    Source,
    asked_for,
)
from flows.orchestration.early_server import start_server
from tasks.storage.redaction import redact
from tasks.storage.waits import say

if TYPE_CHECKING:
    from tasks.config.evaluate import EvaluateRun


def evaluate(
    context: typer.Context,
    source: Source,
    destination: Destination,
    methods: Annotated[
        str, typer.Option(metavar="NAME,...", help="Methods; the first is the baseline for the others.")
    ],
    preset: Annotated[str | None, typer.Option(help="Preset of every method; each one's first by default.")] = None,
    degrade: Annotated[str | None, typer.Option(help="Degrade clean faces with this preset first.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize to this side, in pixels, before degrading.")] = None,
    resize_back: ResizeBack = None,
    column: ImageColumn = "image",
    gt_column: Annotated[str | None, typer.Option(help="Column with the ground truth, if the source has one.")] = None,
    recogniser: Recogniser = None,
    lpips: Lpips = None,
    metrics: Metrics = None,
    protocol: Protocol = None,
    fid_reference: FidReference = None,
    seed: Annotated[int, typer.Option(help="Random seed of every run.")] = 0,
    actors: Actors = None,
    shard_rows: ShardRows = None,
    overwrite: Overwrite = False,
    allow_open_cluster: AllowOpenCluster = None,
    engine: Engine = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore the same rows with several methods and compare them: table, gallery, Markdown, LaTeX, JSON."""

    def work() -> Any:
        from tasks.config.evaluate import EvaluateRun

        run = asked_for(context, EvaluateRun)
        _check(run)
        if (finished := _finished(run)) is not None:
            return finished
        say("starting Prefect")
        start_server()
        from flows.evaluate_methods import evaluate_methods_with_fallback

        return evaluate_methods_with_fallback(run)

    command(work, show.evaluate, as_json, debug)


def _check(run: EvaluateRun) -> None:
    """UsageError for what can be refused before torch, Prefect and Ray are imported."""
    say(f"{redact(run.source)} -> {redact(run.destination)}: {', '.join(run.methods)}")
    from tasks.runs.comparison import check_comparison

    check_comparison(run)


def _finished(run: EvaluateRun) -> dict[str, Any] | None:
    """The outcome, if nothing is left to do."""
    from tasks.finish_run import finish_run
    from tasks.plan_shards import finished_plan
    from tasks.runs.comparison import finished_comparison, is_degraded
    from tasks.runs.prepare import FACES_ALONE, prepare_run
    from tasks.storage.store import Store

    degradation = run.degradation()
    if degradation is not None and not is_degraded(degradation):
        return None
    records = {}
    for restoration in run.restorations():
        resolved, store = prepare_run(restoration, FACES_ALONE), Store(restoration.destination)
        if (plan := finished_plan(resolved, store)) is None:
            return None
        records[restoration.method] = finish_run(resolved, store, datetime.now(UTC), plan.damaged)
    compared = finished_comparison(Store(f"{run.destination}/report"), list(records.values()))
    if compared is None:
        return None
    say(f"nothing to do: {redact(run.destination)} is finished, and {redact(run.source)} has nothing new")
    return {"runs": records, "comparison": compared, "report": compared["report"]}
