"""Compares several methods on the same rows, as a paper does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from prefect import flow

from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import with_fallback
from flows.restore_dataset import restore_dataset_with_fallback, restore_without_prefect
from tasks.compare_runs import compare_runs
from tasks.config.evaluate import EvaluateRun
from tasks.config.restore import RestoreRun
from tasks.degrade_dataset import degrade_once
from tasks.engine.ray_session import joined_ray
from tasks.runs.comparison import check_comparison
from tasks.runs.record import RunRecord


@flow(name="evaluate-methods")
def evaluate_methods(run: EvaluateRun) -> dict[str, Any]:
    """Degrade the source into `destination`/lq (if requested), restore it with each method into `destination`/<method>,
    all with the same seed, and compare them in `destination`/report. Running it again resumes."""
    own_run()
    return _evaluate(run, restore_dataset_with_fallback)


def evaluate_methods_with_fallback(run: EvaluateRun) -> dict[str, Any]:
    """`evaluate_methods`; if Prefect itself fails, continues without it. Its runs share Ray, which starts beside
    Prefect."""
    with nullcontext() if run.engine == "local" else joined_ray():
        return with_fallback(lambda: evaluate_methods(run), lambda: evaluate_without_prefect(run))


def evaluate_without_prefect(run: EvaluateRun) -> dict[str, Any]:
    """The same recipe without Prefect."""
    return _evaluate(run, restore_without_prefect)


def _evaluate(run: EvaluateRun, restore: Callable[[RestoreRun], RunRecord]) -> dict[str, Any]:
    check_comparison(run)
    runs = run.restorations()
    degradation = run.degradation()
    if degradation is not None:
        degrade_once(degradation)
    records = {restoration.method: restore(restoration) for restoration in runs}
    title = f"{len(runs)} methods on {run.degrade or 'the same'} faces"
    compared = compare_runs(title, runs, list(records.values()), f"{run.destination}/report")
    return {"runs": records, "comparison": compared, "report": compared["report"]}
