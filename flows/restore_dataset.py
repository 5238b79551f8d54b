"""Restores every face of a dataset with one method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import islice

from prefect import flow

from flows.orchestration.early_start import EarlyStart, taken_early_start
from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import Phase, as_prefect_task, call_directly, with_fallback
from flows.orchestration.run_page import (
    DEGRADED,
    ProgressArtifact,
    announce,
    emit_failure_event,
    relay_worker_logs,
    show_record,
)
from flows.progress.figures import RunFigures
from flows.progress.metrics import metrics_endpoint
from flows.progress.run_progress import RunProgress
from tasks.config.resolve import ResolvedRun
from tasks.config.restore import RestoreRun
from tasks.engine.trace import TraceFile
from tasks.finish_run import finish_run
from tasks.plan_shards import plan_shards
from tasks.report.run_report import prepare_report
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.commits import Record
from tasks.runs.plan import Plan
from tasks.runs.prepare import prepare_run
from tasks.runs.record import RunRecord
from tasks.runs.shards import Shard
from tasks.runs.single_writer import exclusive_driver
from tasks.storage.redaction import redact
from tasks.storage.store import Store

SHARDS_PER_SLICE = 5000


@flow(name="restore-dataset", flow_run_name="{run.title}")
def restore_dataset(run: RestoreRun) -> RunRecord:
    """Plan what is missing, restore it, report. Returns run.json."""
    own_run()
    with emit_failure_event(run.destination):
        return _restore_run(run, as_prefect_task)


def restore_dataset_with_fallback(run: RestoreRun) -> RunRecord:
    """`restore_dataset`; if Prefect itself fails, continues without it. Finished shards are not repeated."""
    prepare_report()  # its server may still be starting
    return with_fallback(lambda: restore_dataset(run), lambda: restore_without_prefect(run))


def restore_without_prefect(run: RestoreRun) -> RunRecord:
    """The same recipe without Prefect: its phases are called directly."""
    return _restore_run(run, call_directly)


def _restore_run(run: RestoreRun, phase: Phase) -> RunRecord:
    return restore_phases(phase(prepare_run, "resolve")(run), phase)


def restore_phases(
    resolved: ResolvedRun,
    phase: Phase,
    gpus: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    catch_up: bool = False,
) -> RunRecord:
    """The recipe; `gpus` is held while there are workers.

    An interrupted run is resumed on its frozen plan. With `catch_up`, it is then planned again, to take what has been
    added to the source since.
    """
    run, store = resolved.run, Store(resolved.run.destination)
    while True:
        early = taken_early_start(resolved)
        started, began = (early.started, early.began) if early else (datetime.now(UTC), None)
        plan: Plan = phase(_plan, "plan")(resolved, store, early)
        if plan.todo_count:
            _restore(resolved, store, plan, began, phase, gpus)
        record: RunRecord = phase(finish_run, "finish")(resolved, store, started, plan.damaged)
        if not plan.finished:
            show_record(record)
        if plan.damaged:
            announce(DEGRADED, run.destination, {"left_out": plan.damaged})
        if not (catch_up and plan.resumed):
            return record


def _plan(resolved: ResolvedRun, store: Store, early: EarlyStart | None) -> Plan:
    return early.plan if early else plan_shards(resolved, store)


def _restore(
    resolved: ResolvedRun,
    store: Store,
    plan: Plan,
    began: float | None,
    phase: Phase,
    gpus: Callable[[], AbstractContextManager[None]],
) -> None:
    run, done = resolved.run, plan.rows - sum(shard.rows for shard in plan.todo)
    method = run.method
    figures = RunFigures(method, redact(run.destination), plan.rows, done, began or time.monotonic())
    page = ProgressArtifact(method, plan.rows, done)
    # Left from the last to the first: a run that is cancelled stops its workers, then gives up the destination, then
    # updates its page.
    with (
        TraceFile(resolved.run.trace) as trace,
        gpus(),
        relay_worker_logs(),
        page,
        exclusive_driver(store) as lost,
        worker_pool(resolved) as pool,
        metrics_endpoint(figures, run.metrics_port, run.metrics_address),
        RunProgress(figures) as line,
    ):
        figures.workers = pool.workers

        def advance(record: Record) -> None:
            line.add(record)
            page.advance(record["rows"])
            trace.add(record.get("trace"))

        wanted, later = run.max_rejects == 1, plan.todo_count
        for number, shards in enumerate(_slices(plan)):
            later -= len(shards)
            phase(restore_shards, f"{method}-slice-{number}")(pool, shards, advance, lost, wanted, later)


def _slices(plan: Plan) -> Iterator[list[Shard]]:
    todo = plan.todo
    while shards := list(islice(todo, SHARDS_PER_SLICE)):
        yield shards
