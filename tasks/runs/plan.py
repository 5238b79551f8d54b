"""The frozen plan of a run: `plan/00000.parquet` and its successors. The last one is the live one.

A plan is frozen so that all drivers and every resume work on the same shards, whatever happens to the source meanwhile.
What is done is not written into it: that is what the commits say, so the two can never disagree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from bfr_models.errors import BfrError, UsageError
from tasks.runs import commits
from tasks.runs.layout import PLAN, RECORD, SOURCE, has_own_source, plan_file
from tasks.runs.record import RunRecord, read_record
from tasks.runs.sealed import MADE_BY, encode_sealed, read_sealed
from tasks.runs.shards import SCHEMA, Shard, as_own, from_table, to_table
from tasks.storage.store import Store

_RETRIED = b"bfr:retry_rejected"  # key of the plan file's metadata


@dataclass(frozen=True)
class Plan:
    """The live shards of a run and what is left to do."""

    number: int
    shards: pa.Table
    done: frozenset[str]  # the live commits that exist, by name
    given: str = ""  # the source as passed to this command, secrets included
    resumed: bool = False  # taken as it was frozen, without listing the source
    finished: bool = False  # nothing is left to do, and run.json says so
    damaged: tuple[str, ...] = ()  # source files that were left out, and why

    @property
    def todo(self) -> Iterator[Shard]:
        """The shards without a commit, in the order of the plan."""
        todo = (shard for shard in from_table(self.shards) if shard.commit not in self.done)
        return (replace(shard.with_secrets(self.given), plan=self.number) for shard in todo)

    @property
    def todo_count(self) -> int:
        return int(self.shards.num_rows) - len(self.done)

    @property
    def rows(self) -> int:
        return sum(self.shards["rows"].to_pylist())

    @property
    def commits(self) -> list[str]:
        """The names of the live commits, including those still to come, in the order of the plan."""
        return [shard.commit for shard in from_table(self.shards)]

    @property
    def retried(self) -> list[str]:
        """The rejection codes whose rows this plan was made to try again; none for most plans."""
        return json.loads((self.shards.schema.metadata or {}).get(_RETRIED, b"[]"))

    @property
    def made_by(self) -> dict[str, Any]:
        """The settings, the arguments and the code of the command that made this plan; empty for older versions."""
        return json.loads((self.shards.schema.metadata or {}).get(MADE_BY, b"{}"))


def find_plan(store: Store) -> Plan | None:
    """The live plan; None if nothing is planned yet."""
    numbers = plan_numbers(store)
    return _read(store, max(numbers)) if numbers else None


def plan_numbers(store: Store) -> list[int]:
    """The numbers of all plans that have a file."""
    return [int(PurePosixPath(path).stem) for path in store.list(PLAN) if path.endswith(".parquet")]


def latest_plan(store: Store) -> Plan:
    """The live plan of an existing run. UsageError if there is no run."""
    plan = find_plan(store)
    if plan is None:
        raise UsageError(f"expected a run at {store}, found no plan there; name the DST of a `bfr restore`")
    return plan


def freeze_plan(
    store: Store,
    number: int,
    shards: Sequence[Shard],
    retried: Collection[str] = (),
    made_by: Mapping[str, Any] = MappingProxyType({}),
) -> Plan:
    """Makes these shards the live plan, by a create-only put. Returns it, or the plan of a driver that was faster."""
    notes = {_RETRIED: json.dumps(sorted(retried)).encode(), MADE_BY: json.dumps(dict(made_by)).encode()}
    store.create(plan_file(number), encode_sealed(to_table(shards), notes))
    return _read(store, number)


def require_planned(store: Store, shard: Shard) -> None:
    """BfrError if a newer plan than the shard's own leaves it out. Costs one request while there is no newer plan."""
    try:
        store.read(plan_file(shard.plan + 1))
    except FileNotFoundError:
        return
    if shard.commit not in latest_plan(store).commits:
        raise BfrError(
            f"expected shard {shard.commit} in the live plan, found a newer plan without it: the same command is "
            "running elsewhere and has planned again; run it again when that is done"
        )


def finished_record(store: Store, plan: Plan) -> RunRecord | None:
    """run.json, if this plan wrote it and nothing is left to do: a run that has lost a commit since is not finished."""
    return None if plan.todo_count else _closing_record(store, plan)


def require_finished(store: Store) -> tuple[Plan, RunRecord]:
    """The plan of a finished run, and its run.json. UsageError if it is not finished."""
    plan = latest_plan(store)
    record = finished_record(store, plan)
    if record is None:
        raise UsageError(
            f"expected a finished run at {store}, found {plan.todo_count} of {plan.shards.num_rows} shards to do; "
            "run the `bfr restore` command that started it again"
        )
    return plan, record


def reopen(store: Store, plan: Plan) -> None:
    """Removes run.json from a closed run that has lost a commit: once its shard is redone, the run is closed again.

    Before any work, or a reader would take the run for finished meanwhile. The commits are listed once more, since
    another driver may have closed the run in this moment.
    """
    if plan.todo_count and _closing_record(store, plan) and latest_plan(store).todo_count:
        store.delete(RECORD)


def _closing_record(store: Store, plan: Plan) -> RunRecord | None:
    record = read_record(store)
    return record if record is not None and record.get("plan") == plan.number else None


def _read(store: Store, number: int) -> Plan:
    shards = read_sealed(store, plan_file(number), SCHEMA)
    if has_own_source(json.loads((shards.schema.metadata or {}).get(MADE_BY, b"{}")).get("arguments", {})):
        shards = as_own(shards, store.url(SOURCE))
    live = {shard.commit for shard in from_table(shards)}
    return Plan(number, shards, frozenset(live & commits.committed(store)))
