"""Restore every face of a dataset with one method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from itertools import islice
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from bfr_models.errors import BfrError
from tasks._progress import RowProgress
from tasks._shards import Shard
from tasks._single_writer import sole_driver
from tasks.config import RestoreRun
from tasks.finish_run import RunRecord, finish_run
from tasks.plan_shards import Plan, plan_shards
from tasks.restore_shards import restore_shards, worker_pool

SHARDS_PER_SLICE = 5000
RETRY_DELAYS: list[float] = [2, 10]  # seconds

Phase = Callable[[Callable[..., Any], str], Callable[..., Any]]
"""(function, name) -> the function as a phase of the recipe: a Prefect task, or itself."""

OURS = "raised by the run itself, not by Prefect"


@flow(name="restore-dataset", flow_run_name="{run.method} of {run.source}")
def restore_dataset(run: RestoreRun) -> RunRecord:
    """Plan what is missing, restore it, report. Returns run.json."""
    return _restore(run, _as_task)


def restore_dataset_anyway(run: RestoreRun) -> RunRecord:
    """`restore_dataset`, and where Prefect itself fails, the same without it: nothing done is done twice."""
    try:
        return restore_dataset(run)
    except BfrError:
        raise
    except Exception as error:
        if OURS in getattr(error, "__notes__", ()):
            raise
        print(f"Prefect failed ({type(error).__name__}: {error}); going on without it", file=sys.stderr)
        return restore_without_prefect(run)


def restore_without_prefect(run: RestoreRun) -> RunRecord:
    """The same recipe, its phases called as they are."""
    return _restore(run, lambda function, _name: function)


def _restore(run: RestoreRun, phase: Phase) -> RunRecord:
    started = datetime.now(UTC)
    plan: Plan = phase(plan_shards, "plan")(run)
    if plan.todo_count:
        with sole_driver(run.destination) as lost, worker_pool(run) as pool, _progress(run, plan) as progress:
            for number, shards in enumerate(_slices(plan)):
                restore = phase(restore_shards, f"{run.method}-slice-{number}")
                restore(pool, shards, lambda record: progress.advance(record["rows"]), lost)
    record: RunRecord = phase(finish_run, "finish")(run, started)
    return record


def _as_task(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A task that may be tried again, since every phase picks up where it stopped; our own errors are final."""
    settings = task(
        task_run_name=name,
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=RETRY_DELAYS,
        retry_condition_fn=_is_not_final,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return settings(_marking_its_errors(function))


def _marking_its_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            error.add_note(OURS)
            raise

    return call


def _is_not_final(_task: object, _run: object, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), BfrError)


def _progress(run: RestoreRun, plan: Plan) -> RowProgress:
    return RowProgress(run.method, plan.rows, plan.rows - sum(shard.rows for shard in plan.todo))


def _slices(plan: Plan) -> Iterator[list[Shard]]:
    todo = plan.todo
    while shards := list(islice(todo, SHARDS_PER_SLICE)):
        yield shards
