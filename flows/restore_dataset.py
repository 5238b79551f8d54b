"""Restore every face of a dataset with one method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from bfr_models.errors import BfrError
from flows.orchestration.run_page import (
    DEGRADED,
    ProgressArtifact,
    announce,
    failures_announced,
    show_record,
    workers_heard,
)
from flows.progress import RowProgress
from tasks.config.restore import RestoreRun
from tasks.finish_run import RunRecord, finish_run
from tasks.plan_shards import Plan, plan_shards
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.runs.single_writer import sole_driver
from tasks.storage.filesystem import redact_error, redact_text

SHARDS_PER_SLICE = 5000
RETRY_DELAYS: list[float] = [2, 10]  # seconds

Phase = Callable[[Callable[..., Any], str], Callable[..., Any]]
"""(function, name) -> the function as a phase of the recipe: a Prefect task, or itself."""

Result = TypeVar("Result")

OURS = "raised by the run itself, not by Prefect"


@flow(name="restore-dataset", flow_run_name="{run.title}")
def restore_dataset(run: RestoreRun) -> RunRecord:
    """Plan what is missing, restore it, report. Returns run.json."""
    with failures_announced(run.destination):
        return restore_phases(run, as_task)


def restore_dataset_anyway(run: RestoreRun) -> RunRecord:
    """`restore_dataset`, and where Prefect itself fails, the same without it: nothing done is done twice."""
    return anyway(lambda: restore_dataset(run), lambda: restore_without_prefect(run))


def restore_without_prefect(run: RestoreRun) -> RunRecord:
    """The same recipe, its phases called as they are."""
    return restore_phases(run, as_it_is)


def restore_phases(
    run: RestoreRun,
    phase: Phase,
    gpus: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    catch_up: bool = False,
) -> RunRecord:
    """The recipe; `gpus` is held while workers are there. To catch up is to take what has come to the source since an
    interrupted run was planned as well."""
    while True:
        started = datetime.now(UTC)
        plan: Plan = phase(plan_shards, "plan")(run)
        if plan.todo_count:
            _restore(run, plan, phase, gpus)
        record: RunRecord = phase(finish_run, "finish")(run, started, plan.damaged)
        if not plan.finished:
            show_record(record)
        if plan.damaged:
            announce(DEGRADED, run.destination, {"left_out": plan.damaged})
        if not (catch_up and plan.resumed):
            return record


def _restore(run: RestoreRun, plan: Plan, phase: Phase, gpus: Callable[[], AbstractContextManager[None]]) -> None:
    done = plan.rows - sum(shard.rows for shard in plan.todo)
    page = ProgressArtifact(run.method, plan.rows, done)
    # The workers are the first to go: a run that is cancelled frees its GPUs before it sees to its page.
    with (
        gpus(),
        workers_heard(),
        page,
        sole_driver(run.destination) as lost,
        worker_pool(run) as pool,
        RowProgress(run.method, plan.rows, done) as line,
    ):

        def advance(record: Record) -> None:
            line.advance(record["rows"])
            page.advance(record["rows"])

        for number, shards in enumerate(_slices(plan)):
            phase(restore_shards, f"{run.method}-slice-{number}")(pool, shards, advance, lost)


def anyway(with_prefect: Callable[[], Result], without: Callable[[], Result]) -> Result:
    """The first, and where Prefect itself fails, the second."""
    try:
        return with_prefect()
    except BfrError:
        raise
    except Exception as error:
        if OURS in getattr(error, "__notes__", ()):
            raise
        said = redact_text(f"{type(error).__name__}: {error}")
        print(f"Prefect failed ({said}); going on without it", file=sys.stderr)
        return without()


def as_it_is(function: Callable[..., Any], _name: str) -> Callable[..., Any]:
    """A phase without Prefect."""
    return function


def as_task(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A task that may be tried again, since every phase picks up where it stopped; our own errors are final."""
    settings = task(
        task_run_name=name,
        tags={"bfr"},
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
            redact_error(error)  # Prefect keeps it
            raise

    return call


def _is_not_final(_task: object, _run: object, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), BfrError)


def _slices(plan: Plan) -> Iterator[list[Shard]]:
    todo = plan.todo
    while shards := list(islice(todo, SHARDS_PER_SLICE)):
        yield shards
