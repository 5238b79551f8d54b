"""The frozen plan of a run, as it lies on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError, UsageError
from tasks.runs import commits
from tasks.runs.shards import Shard, from_table
from tasks.storage.store import Store

RETRIED = b"bfr:retry_rejected"


@dataclass(frozen=True)
class Plan:
    """The live shards of a run and what is left to do."""

    number: int
    shards: pa.Table
    done: frozenset[str]  # names of commits
    given: str = ""  # the source as this command was given it
    resumed: bool = False  # as it was frozen, without a look at the source
    finished: bool = False  # nothing is left to do, and run.json says so
    damaged: tuple[str, ...] = ()  # source files that were left out, and why

    @property
    def todo(self) -> Iterator[Shard]:
        """The shards without a commit, in the plan's order."""
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
        """The names of the live commits, those to come included, in the plan's order."""
        return [shard.commit for shard in from_table(self.shards)]

    @property
    def retried(self) -> list[str]:
        """The codes of rejection for which this plan was made, if it was."""
        return json.loads((self.shards.schema.metadata or {}).get(RETRIED, b"[]"))


def latest_plan(store: Store) -> Plan:
    """The live plan of an existing run."""
    latest = read_latest(store)
    if latest is None:
        raise UsageError(f"expected a run at {store!r}, found no plan there")
    return with_commits(store, *latest)


def require_planned(store: Store, shard: Shard) -> None:
    """BfrError if a newer plan than the shard's is without it. No listing, as long as there is no newer one."""
    try:
        store.read(path_of(shard.plan + 1))
    except FileNotFoundError:
        return
    if shard.commit not in latest_plan(store).commits:
        raise BfrError(
            f"expected shard {shard.commit} in the live plan, found a newer plan without it: the same command has "
            "planned anew elsewhere; run it again when that is done"
        )


def finished_record(store: Store, plan: Plan) -> dict[str, Any] | None:
    """run.json, if it is that of this plan and nothing is to do: a run that lost a commit since is not finished."""
    return None if plan.todo_count else _closing_record(store, plan)


def _closing_record(store: Store, plan: Plan) -> dict[str, Any] | None:
    if not store.exists("run.json"):
        return None
    record: dict[str, Any] = json.loads(store.read("run.json"))
    return record if record.get("plan") == plan.number else None


def reopen(store: Store, plan: Plan) -> None:
    """Takes run.json from a closed run that lost a commit, before any work: what is done again must be closed again.
    The commits are listed once more, since another driver may have closed the run just now."""
    if plan.todo_count and _closing_record(store, plan) and latest_plan(store).todo_count:
        store.delete("run.json")


def require_finished(store: Store) -> tuple[Plan, dict[str, Any]]:
    """The plan of a finished run, and its run.json. UsageError where there is none."""
    plan = latest_plan(store)
    record = finished_record(store, plan)
    if record is None:
        raise UsageError(
            f"expected a finished run at {store!r}, found {plan.todo_count} of {plan.shards.num_rows} shards to do; "
            "run the `bfr restore` command that started it again"
        )
    return plan, record


def read_latest(store: Store) -> tuple[int, pa.Table] | None:
    numbers = _numbers(store)
    return (max(numbers), read_plan(store, max(numbers))) if numbers else None


def _numbers(store: Store) -> list[int]:
    return [int(path[5:-8]) for path in store.list("plan") if path.endswith(".parquet")]


def read_plan(store: Store, number: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(path_of(number))))


def with_commits(store: Store, number: int, shards: pa.Table) -> Plan:
    live = {shard.commit for shard in from_table(shards)}
    return Plan(number, shards, frozenset(live & commits.committed(store)))


def path_of(number: int) -> str:
    return f"plan/{number:05d}.parquet"
