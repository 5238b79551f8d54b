"""`bfr methods` and `bfr doctor`: what is installed, and what this machine can do."""

from __future__ import annotations

import dataclasses
from typing import Any

from flows.cli import show
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

    command(work, show.methods, as_json, debug)


def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Show what this machine can and cannot do, and how to fix it; exit code 1 if something is broken."""

    def work() -> Any:
        from tasks.check_machine import check_machine

        return [dataclasses.asdict(check) for check in check_machine()]

    command(work, show.doctor, as_json, debug, exit_code=lambda checks: int(any(c["state"] == "bad" for c in checks)))
