"""Compares several methods on the same rows, as a paper does."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.orchestration.lost_runs import own_run
from flows.restore_dataset import restore_dataset_with_fallback
from tasks.compare_runs import compare_runs
from tasks.config.evaluate import EvaluateRun
from tasks.config.resolve import resolve_run
from tasks.degrade_dataset import degrade_once


@flow(name="evaluate-methods")
def evaluate_methods(run: EvaluateRun) -> dict[str, Any]:
    """Degrade the source into `destination`/lq (if requested), restore it with each method into `destination`/<method>,
    all with the same seed, and compare them in `destination`/report. Running it again resumes."""
    own_run()
    runs = run.restorations()
    for restoration in runs:
        resolve_run(restoration)  # report an unknown name before any work starts
    degradation = run.degradation()
    if degradation is not None:
        degrade_once(degradation)
    records = {restoration.method: restore_dataset_with_fallback(restoration) for restoration in runs}
    title = f"{len(runs)} methods on {run.degrade or 'the same'} faces"
    compared = compare_runs(title, runs, list(records.values()), f"{run.destination}/report")
    return {"runs": records, "comparison": compared, "report": compared["report"]}
