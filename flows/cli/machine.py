"""`bfr methods` and `bfr doctor`: what is installed, and what this machine can do."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from bfr_models.errors import UsageError
from flows.cli import show_machine
from flows.cli.command import run as command
from flows.cli.options import Debug, Json


def methods(as_json: Json = False, debug: Debug = False) -> None:
    """List methods and their presets."""

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

    command(work, show_machine.methods, as_json, debug)


def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Ask every node of the Ray cluster at RAY_ADDRESS instead.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="With --cluster: a folder where each node is to read and write.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what this machine, or each node of a cluster, can and cannot do, and how to fix it; exit code 1 if something
    is broken."""

    def work() -> Any:
        from tasks.check_machine import check_cluster, check_machine

        if store and not cluster:
            raise UsageError("expected --cluster with --store, found this machine alone; add --cluster")
        return [dataclasses.asdict(check) for check in (check_cluster(store) if cluster else check_machine())]

    command(
        work,
        show_machine.doctor,
        as_json,
        debug,
        exit_code=lambda checks: int(any(c["state"] == "bad" for c in checks)),
    )
