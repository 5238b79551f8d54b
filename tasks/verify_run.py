"""Proves a finished run: each file is what its commit says, and each input row is there exactly once.

Needs only the destination. The plan has the rows; a commit record has the files that hold a shard's rows, and a digest
of the rows' ids in the order of the source. The ids in `data/` and `rejected/` must give the same digest.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tasks.runs.finished_run import current_run
from tasks.runs.inspection import inspect_run
from tasks.runs.layout import DAMAGED
from tasks.storage.redaction import redact


def verify_run(destination: str) -> dict[str, Any]:
    """Checks a whole run, or the current one of generations; `problems` is empty if all is well. UsageError if there is
    no run."""
    store = current_run(destination)
    found = inspect_run(store)
    plan = found.plan
    return {
        "destination": redact(store.url()),
        "plan": None if plan is None else plan.number,
        "shards": 0 if plan is None else plan.shards.num_rows,
        "rows_in": 0 if plan is None else plan.rows,
        **asdict(found.counts),
        "ok": not found.problems,
        "problems": [asdict(problem) for problem in found.problems],
        "set_aside": store.list(DAMAGED),
    }
