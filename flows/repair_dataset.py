"""Mend a run: look at all of it, restore again what is damaged, and close it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flows.restore_dataset import restore_dataset_with_fallback
from tasks.config.restore import RestoreRun
from tasks.finish_run import finish_run
from tasks.repair_run import Repair, repair_run
from tasks.runs.record import RunRecord
from tasks.storage.redaction import redact_text
from tasks.storage.store import Store
from tasks.verify_run import verify_run

Outcome = dict[str, Any]


def repair_dataset(
    destination: str,
    *,
    accept_code_change: bool = False,
    restore: Callable[[RestoreRun], RunRecord] | None = None,
) -> Outcome:
    """Mends what can be mended from the source and the plan. Returns what was found, what was done about it, and what
    is left. `restore` is the recipe that restores; by default with Prefect."""
    repair = repair_run(destination, accept_code_change=accept_code_change)
    _say(repair)
    if repair.resolved is not None and repair.todo:
        (restore or restore_dataset_with_fallback)(repair.resolved.run)
    elif repair.resolved is not None and repair.close:
        finish_run(repair.resolved, Store(repair.resolved.run.destination), datetime.now(UTC))
    after = verify_run(destination)  # the proof
    return {
        "destination": after["destination"],
        "found": [asdict(one) for one in repair.found],
        "mended": repair.mended,
        "left": after["problems"],
        "ok": after["ok"],
        "set_aside": after["set_aside"],
        "next": _next(repair, after),
    }


def _say(repair: Repair) -> None:
    """Before the work, which may take hours."""
    for one in repair.found:
        print(redact_text(f"{one.kind}: {one.where}: {one.detail}"), file=sys.stderr)
    for line in repair.mended:
        print(line, file=sys.stderr)


def _next(repair: Repair, after: Outcome) -> str:
    """What a person has to do."""
    if after["ok"]:
        return ""
    if repair.why:
        return f"run the `bfr restore` command that started the run ({repair.why})"
    kinds = {problem["kind"] for problem in after["problems"]}
    if kinds == {"file_extra"}:
        return "`bfr vacuum` removes the files that no commit names"
    if kinds <= {"source_missing", "source_changed"}:
        return "put these files back from a copy of the run: its images are read from there, by `bfr export` for one"
    return "run the `bfr restore` command that started the run"
