"""`bfr reprocess` and `bfr deploy`: the same settings, run once by hand or on a schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows.cli import show
from flows.cli.command import run
from flows.cli.options import (
    Config,
    Credentials,
    Debug,
    Destination,
    GpuPool,
    Json,
    Keep,
    MaxDrop,
    MaxRise,
    Method,
    PresetName,
    Set,
    Source,
    asked_for,
)
from flows.cli.restore import too_many_rejects
from flows.orchestration.early_server import start_server
from tasks.config.reprocess import ReprocessRun
from tasks.storage.redaction import redact
from tasks.storage.waits import say


def reprocess(
    context: typer.Context,
    source: Source,
    destination: Destination,
    method: Method = None,
    preset: PresetName = None,
    config: Config = None,
    settings: Set = None,
    max_identity_drop: MaxDrop = None,
    max_fid_rise: MaxRise = None,
    keep_generations: Keep = None,
    credentials: Credentials = None,
    gpu_pool: GpuPool = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore what is new or changed, once. Different settings make a new generation beside the old one."""

    def work() -> Any:
        asked = asked_for(context, ReprocessRun, config)
        _check(asked)
        if (finished := _finished(asked)) is not None:
            return finished
        say("starting Prefect")
        start_server()
        from flows.reprocess import reprocess_with_fallback

        return reprocess_with_fallback(asked)

    run(work, show.reprocessed, as_json, debug, _exit_code)


def deploy(
    context: typer.Context,
    source: Source,
    destination: Destination,
    method: Method = None,
    cron: Annotated[
        str | None, typer.Option(help='Schedule in cron syntax: "0 3 * * *" is every night at three.')
    ] = None,
    interval: Annotated[float | None, typer.Option(min=1, help="Seconds between runs, instead of --cron.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of the schedule, such as Europe/Berlin; UTC by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the deployment; made from DST by default.")] = None,
    work_pool: Annotated[str, typer.Option(help="Prefect work pool to run in; created if missing.")] = "bfr",
    gpu_pool: GpuPool = None,
    gpu_limit: Annotated[
        int | None, typer.Option(min=1, help="Runs that may hold the limit at once; 1 for a new limit.")
    ] = None,
    preset: PresetName = None,
    config: Config = None,
    settings: Set = None,
    max_identity_drop: MaxDrop = None,
    max_fid_rise: MaxRise = None,
    keep_generations: Keep = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Put `bfr reprocess` on a schedule of a Prefect server. Run the same command again to change it."""

    def work() -> Any:
        asked = asked_for(context, ReprocessRun, config)
        from flows.deploy_reprocess import deploy as make

        return make(
            asked,
            cron=cron,
            interval=interval,
            timezone=timezone,
            name=name,
            work_pool=work_pool,
            gpu_limit=gpu_limit,
        )

    run(work, show.deployed, as_json, debug)


def _exit_code(outcome: dict[str, Any]) -> int:
    return 3 if outcome["held_back"] else too_many_rejects(outcome["run"])


def _check(asked: ReprocessRun) -> None:
    """UsageError for what can be refused before torch, Prefect and Ray are imported. What only a Prefect block opens is
    looked at later."""
    say(f"{redact(asked.source)} -> {redact(asked.destination)}: {asked.method}")
    from tasks.config.ray_place import require_ray_place
    from tasks.config.resolve import resolve_run
    from tasks.runs.listing import list_source
    from tasks.storage.store import Store

    if asked.engine == "ray":
        require_ray_place()
    resolve_run(asked)
    if asked.credentials is None:
        Store(asked.destination).require_writable()
        try:
            list_source(asked)
        except UsageError:
            _require_dataset(asked)
            raise


def _require_dataset(asked: ReprocessRun) -> None:
    """UsageError, with the command to use instead, if the source is files."""
    from tasks.pack_pictures import files_of_run

    source = redact(asked.source)
    if (files := files_of_run(asked.source, asked.destination)) is not None:
        raise UsageError(
            f"expected a dataset at {source} for `bfr reprocess` (*.parquet), found {len(files.todo)} files to pack; "
            f"use `bfr restore {source} DST --method {asked.method}` with a DST of its own, on a schedule as well: run "
            "again, it restores only the files that are new or have changed"
        )


def _finished(asked: ReprocessRun) -> dict[str, Any] | None:
    """The outcome, if the current generation has these settings and nothing is left to do."""
    if asked.credentials is not None:
        return None
    from tasks.finish_run import finish_run
    from tasks.generations import current_generation, expire_generations, make_current
    from tasks.plan_shards import finished_plan
    from tasks.runs.pointer import address
    from tasks.runs.prepare import prepare_run
    from tasks.storage.store import Store

    resolved = prepare_run(asked)
    asked = asked.model_copy(update={"input": resolved.run.input})
    if (name := current_generation(resolved)) is None:
        return None
    generation = replace(resolved, run=asked.generation(address(asked.destination, name)))
    store = Store(generation.run.destination)
    if (plan := finished_plan(generation, store)) is None:
        return None
    say(f"nothing to do: {store} is current and finished, and {redact(asked.source)} has nothing new")
    record = finish_run(generation, store, datetime.now(UTC), plan.damaged)
    outcome = make_current(asked.destination, name, None)
    return outcome | {"expired": expire_generations(asked.destination, asked.keep_generations, name), "run": record}
