"""Restores a dataset again as it changes: new rows go into the current generation, other settings make a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import flow
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from bfr_models.errors import UsageError
from flows.orchestration.credentials import use_credentials
from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import Phase, as_prefect_task, call_directly, with_fallback
from flows.orchestration.run_page import HELD_BACK, SWITCHED, announce, emit_failure_event
from flows.restore_dataset import restore_phases
from tasks.compare_generations import compare_generations
from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import ResolvedRun
from tasks.generations import choose_generation, expire_generations, make_current
from tasks.runs.pointer import address
from tasks.runs.prepare import prepare_run

LEASE_SECONDS = 120.0
"""How long a killed run keeps its share of the GPUs; a live run keeps renewing it."""

Outcome = dict[str, Any]


@flow(name="reprocess", flow_run_name="{run.title}")
def reprocess(run: ReprocessRun) -> Outcome:
    """Restore what is new or changed. With other settings, restore everything into a new generation and make that
    current, unless it is worse. Returns the outcome."""
    own_run()
    with emit_failure_event(run.destination):
        return _reprocess(run, as_prefect_task)


def reprocess_with_fallback(run: ReprocessRun) -> Outcome:
    """`reprocess`; if Prefect itself fails, continues without it. Finished shards are not repeated."""
    return with_fallback(lambda: reprocess(run), lambda: reprocess_without_prefect(run))


def reprocess_without_prefect(run: ReprocessRun) -> Outcome:
    """The same recipe without Prefect: its phases are called directly."""
    return _reprocess(run, call_directly)


def _reprocess(run: ReprocessRun, phase: Phase) -> Outcome:
    use_credentials(run.credentials)
    resolved: ResolvedRun = phase(prepare_run, "resolve")(run)
    run = run.model_copy(update={"input": resolved.run.input})
    name: str = phase(choose_generation, "choose-generation")(resolved)
    generation = replace(resolved, run=run.generation(address(run.destination, name)))
    gpus = partial(share_of, run.gpu_pool if phase is as_prefect_task else None)
    record = restore_phases(generation, phase, gpus, catch_up=True)
    comparison = phase(compare_generations, "compare")(run, name)
    outcome: Outcome = phase(make_current, "make-current")(run.destination, name, comparison)
    if outcome["held_back"] and outcome["compared"]:
        announce(HELD_BACK, run.destination, outcome)
    elif outcome["switched"]:
        announce(SWITCHED, run.destination, outcome)
    expired = phase(expire_generations, "expire")(run.destination, run.keep_generations, name)
    return outcome | {"expired": expired, "run": record}


@contextmanager
def share_of(gpu_pool: str | None) -> Iterator[None]:
    """Waits for one of the pool's slots and holds it; Prefect's concurrency limit of that name has the slots."""
    if gpu_pool is None:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(
                concurrency(gpu_pool, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False)
            )
        except ConcurrencySlotAcquisitionError as error:
            raise UsageError(
                f"expected a Prefect concurrency limit {gpu_pool!r}, found: {error}; create it with "
                f"`prefect gcl create {gpu_pool} --limit 1`"
            ) from error
        yield
