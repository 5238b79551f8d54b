"""`bfr reprocess` and `bfr deploy`: the same settings, once by hand or on a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows.cli import show
from flows.cli.command import Debug, Destination, Json, Source, run
from flows.cli.restore import run_settings, too_many_rejects
from tasks.config.reprocess import ReprocessRun

Method = Annotated[str | None, typer.Option(help="See `bfr methods`.")]
PresetName = Annotated[str | None, typer.Option(help="Named size and weights of the method.")]
Config = Annotated[Path | None, typer.Option(help="YAML with any settings of `bfr restore`; flags win.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting of `bfr restore`: gt_column=gt, options.steps=4."),
]
MaxDrop = Annotated[float | None, typer.Option(help="Mean identity a new generation may lose; 0.01 by default.")]
MaxRise = Annotated[float | None, typer.Option(help="Share by which its FID may rise; 0.1 by default.")]
Keep = Annotated[int | None, typer.Option(min=1, help="Finished generations that stay; 2 by default.")]
Credentials = Annotated[str | None, typer.Option(metavar="BLOCK", help="Prefect block with the store's keys.")]
GpuPool = Annotated[str | None, typer.Option(help="Prefect concurrency limit to hold while faces are restored.")]


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
    """Restores what is new or changed, once. Other settings make a new generation beside the old one."""

    def work() -> Any:
        asked = _reprocess_run(context)
        from tasks.config.resolve import resolve_run

        resolve_run(asked)  # before Prefect and Ray start
        from flows.reprocess import reprocess_with_fallback

        return reprocess_with_fallback(asked)

    run(work, show.reprocessed, as_json, debug, _exit_code)


def deploy(
    context: typer.Context,
    source: Source,
    destination: Destination,
    method: Method = None,
    cron: Annotated[
        str | None, typer.Option(help='When, as cron says it: "0 3 * * *" is every night at three.')
    ] = None,
    interval: Annotated[float | None, typer.Option(min=1, help="Or every so many seconds.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of the schedule: Europe/Berlin; UTC by default.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the deployment; made from DST by default.")] = None,
    work_pool: Annotated[str, typer.Option(help="Whose workers run it; made if it is not there.")] = "bfr",
    gpu_pool: GpuPool = None,
    gpu_limit: Annotated[int | None, typer.Option(min=1, help="Runs that may hold it at once; 1 if new.")] = None,
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
    """Puts `bfr reprocess` on a schedule of a Prefect server. The same command again changes it."""

    def work() -> Any:
        asked = _reprocess_run(context)
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


def _reprocess_run(context: typer.Context) -> ReprocessRun:
    """The settings of a command line, of which both verbs have the same."""
    import yaml

    options: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for setting in context.params["settings"] or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"expected --set NAME=VALUE, found {setting!r}")
        where, name = (options, key.removeprefix("options.")) if key.startswith("options.") else (chosen, key)
        where[name] = yaml.safe_load(value)
    given = {key: value for key, value in context.params.items() if key in ReprocessRun.model_fields}
    flags = {key: value for key, value in given.items() if value is not None}
    return ReprocessRun(**run_settings(context.params["config"], chosen | flags, options))


def _exit_code(outcome: dict[str, Any]) -> int:
    return 3 if outcome["held_back"] else too_many_rejects(outcome["run"])
