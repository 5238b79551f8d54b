"""`bfr submit`: a command that a Ray cluster runs by itself, so that a laptop may close its lid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows.cli import show_machine
from flows.cli.command import run as command
from flows.cli.options import Debug, Json
from tasks.storage.waits import say

HERE_ALONE = frozenset({"submit", "review"})
"""Verbs that make no sense where nobody sits."""

JobName = Annotated[str | None, typer.Option(metavar="JOB", help="Show what became of a job.")]


def submit(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="A command of bfr with its arguments.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the cluster's jobs, the newest first.")] = False,
    status: JobName = None,
    logs: Annotated[str | None, typer.Option(metavar="JOB", help="Print what a job has said.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="With --logs: go on until the job ends.")] = False,
    stop: Annotated[
        str | None, typer.Option(metavar="JOB", help="Stop a job in good order; it can be resumed.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a command on the Ray cluster whose dashboard is at RAY_API_SERVER_ADDRESS; show, follow or stop such a job.

    The job's driver runs on the cluster's head: paths are those of its disks, keys those of its environment.
    """
    asked = [name for name, given in (("list", list_), ("status", status), ("logs", logs), ("stop", stop)) if given]
    if words:
        _parse(context, words)

    def work() -> Any:
        if len(asked) + bool(words) != 1:
            raise UsageError(
                "expected one of COMMAND, --list, --status JOB, --logs JOB and --stop JOB, found "
                f"{len(asked) + bool(words)}; example: `bfr submit restore s3://in s3://out --method difface`"
            )
        return _ask(asked[0], status or logs or stop or "", follow and not as_json) if asked else _hand_in(words or [])

    command(work, show_machine.jobs, as_json, debug, exit_code=lambda found: int(_failed(found)))


def _parse(context: typer.Context, words: list[str]) -> None:
    """Refuses a mistake here and now, as the command itself would."""
    group: Any = context.parent
    name, inner, rest = group.command.resolve_command(group, list(words))
    if name in HERE_ALONE:
        context.fail(f"expected a command that runs by itself, found `bfr {name}`")
    values = inner.make_context(name, rest, parent=group).params
    for parameter in inner.params:
        place = values.get(parameter.name)
        if parameter.param_type_name == "argument" and isinstance(place, str) and Path(place).exists():
            say(f"{place} is here; the job looks for it on the disks of the cluster's head")


def _hand_in(words: list[str]) -> Any:
    from tasks.engine import ray_jobs

    return {"job": ray_jobs.submit(words), "state": "pending", "command": " ".join(["bfr", *words])}


def _ask(what: str, job: str, follow: bool) -> Any:
    from tasks.engine import ray_jobs

    if what == "list":
        return ray_jobs.jobs()
    if what == "stop":
        return ray_jobs.job(job) | {"stopping": ray_jobs.stop(job)}
    if what == "status":
        return ray_jobs.job(job)
    if not follow:
        return ray_jobs.job(job) | {"logs": "".join(ray_jobs.logs(job, follow=False))}
    for piece in ray_jobs.logs(job, follow=True):
        print(piece, end="", flush=True)
    return ray_jobs.job(job)


def _failed(found: Any) -> bool:
    return isinstance(found, dict) and found["state"] == "failed"
