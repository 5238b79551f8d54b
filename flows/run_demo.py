"""The demo: two real portraits, degraded many times, restored with every method, scored and reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import with_fallback
from flows.restore_dataset import restore_dataset_with_fallback, restore_without_prefect
from tasks.compare_runs import compare_runs
from tasks.config.evaluate import AS_PAPERS_DO
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.make_demo_faces import make_demo_faces
from tasks.runs.record import RunRecord

METHODS = ("difface", "diffbfr", "clr_face")


@flow(name="demo")
def run_demo(out: str, methods: list[str] | None = None) -> dict[str, Any]:
    """Make `out`/lq, restore it with each method into `out`/<method>, and compare them in `out`/report."""
    own_run()
    return _demo(out, methods, restore_dataset_with_fallback)


def run_demo_with_fallback(out: str, methods: list[str] | None = None) -> dict[str, Any]:
    """`run_demo`; if Prefect itself fails, continues without it."""
    return with_fallback(lambda: run_demo(out, methods), lambda: _demo(out, methods, restore_without_prefect))


def _demo(out: str, methods: list[str] | None, restore: Callable[[RestoreRun], RunRecord]) -> dict[str, Any]:
    runs = [_run(out, method) for method in methods or METHODS]
    for run in runs:
        resolve_run(run)  # report an unknown name before any work starts
    make_demo_faces(f"{out}/lq")
    records = {run.method: restore(run) for run in runs}
    compared = compare_runs("Two portraits", runs, list(records.values()), f"{out}/report")
    return {"runs": records, "report": compared["report"]}


def _run(out: str, method: str) -> RestoreRun:
    places = {"source": f"{out}/lq", "destination": f"{out}/{method}"}
    return RestoreRun(**places, method=method, gt_column="gt", shard_rows=4, **AS_PAPERS_DO)
