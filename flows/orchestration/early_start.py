"""A run's first steps while Prefect starts: its plan is made, its workers load and begin with the first shards.
The recipe takes over what is there, in the phases that would have done it.

Imports nothing of Prefect. Only for a server of this process alone: what fails here shows on no page of Prefect's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from bfr_models.errors import BfrError
from tasks.config.resolve import ResolvedRun
from tasks.plan_shards import plan_shards
from tasks.restore_shards import begin_shards, early_workers
from tasks.runs.plan import Plan
from tasks.runs.single_writer import learn_conditions
from tasks.storage.redaction import redact_text
from tasks.storage.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlyStart:
    """What there is of a run before its recipe."""

    resolved: ResolvedRun
    plan: Plan
    started: datetime
    began: float  # with its shards, by the monotonic clock


_made: list[EarlyStart] = []  # at most one


@contextmanager
def early_start(resolved: ResolvedRun) -> Iterator[None]:
    """Starts the run; what its recipe has not taken over is stopped when the block ends. BfrError as from its phases;
    what else fails is left to them, which try again."""
    store, started = Store(resolved.run.destination), datetime.now(UTC)
    plan = _plan(resolved, store)
    with early_workers(resolved) as pool:
        if plan is not None:
            if store.conditional:  # else one driver has to hold the destination first
                begin_shards(pool, plan.todo)
            _made.append(EarlyStart(resolved, plan, started, time.monotonic()))
        try:
            yield
        finally:
            _made.clear()


def _plan(resolved: ResolvedRun, store: Store) -> Plan | None:
    try:
        plan = plan_shards(resolved, store)
        learn_conditions(store)
    except BfrError:
        raise
    except Exception as error:
        _log.info("%s", redact_text(f"the run could not begin early: {type(error).__name__}: {error}"))
        return None
    return plan


def taken_early_start(resolved: ResolvedRun) -> EarlyStart | None:
    """What has been begun of this run, once."""
    made = next((one for one in _made if one.resolved == resolved), None)
    if made is not None:
        _made.remove(made)
    return made
