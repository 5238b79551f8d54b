"""Plans a run: which shards there are, decided once and frozen.

    plan/spec.json       what decides the output; another setting on the same destination is refused
    plan/00000.parquet   the live shards; create-only; a resume works from it and does not list the source
    plan/00001.parquet   the next one, made when a finished run is started again and the source has grown

The last plan is the live one. A file that changed loses its old shards to its new ones; what was restored
from a file that has since gone from the source is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks import _commits
from tasks._connection import redact
from tasks._parquet import encode_table, find_image_column
from tasks._shards import Shard, current_version, from_table, shards_of_file, to_table
from tasks._storage import FileVersion, Store, open_source
from tasks.config import RestoreRun, semantic_settings
from tasks.detectors import photo_settings
from tasks.recognisers import describe_recogniser

_READERS = 16


@dataclass(frozen=True)
class Plan:
    """The live shards of a run and what is left to do."""

    number: int
    shards: pa.Table
    done: frozenset[str]

    @property
    def todo(self) -> Iterator[Shard]:
        """The shards without a commit, in the plan's order."""
        return (shard for shard in from_table(self.shards) if shard.id not in self.done)

    @property
    def todo_count(self) -> int:
        return int(self.shards.num_rows) - len(self.done)

    @property
    def rows(self) -> int:
        return sum(self.shards["rows"].to_pylist())


def check_settings(run: RestoreRun) -> dict[str, Any]:
    """What decides the run's output. UsageError before any work if it cannot be done, or not into this place."""
    resolved = run.resolve()
    semantic = semantic_settings(run, resolved, describe_recogniser(), photo_settings(run))
    settings: dict[str, Any] = json.loads(json.dumps({"source": redact(run.source.rstrip("/")), **semantic}))
    if f"{run.destination}/".startswith(f"{run.source}/"):
        raise UsageError(f"expected a destination outside {run.source}, found {run.destination}; use another")
    store = Store(run.destination)
    if store.exists("plan/spec.json"):
        _refuse_mixture(json.loads(store.read("plan/spec.json")), settings, run.destination)
    elif store.exists("run.json") or any(store.exists(folder) for folder in ("data", "commits")):
        raise UsageError(f"expected a new or an unfinished run at {run.destination}, found other files; use another")
    return settings


def plan_shards(run: RestoreRun) -> Plan:
    """The frozen plan of the run and what is left of it; makes it, or the next one, where that is due."""
    settings = check_settings(run)
    store = Store(run.destination)
    latest = _latest(store)
    if latest is not None:
        plan = _with_commits(store, *latest)
        if plan.todo_count and _sources_unchanged(plan):
            return plan
    live = list(list_source(run))
    if latest is not None:
        live = _carry_over(plan, live)
        if [s.id for s in live] == plan.shards["id"].to_pylist():
            return plan
    if not live:
        raise UsageError(f"expected rows in {run.source}, found Parquet files without any")
    number = 0 if latest is None else latest[0] + 1
    store.create("plan/spec.json", json.dumps(settings, indent=2).encode())
    _refuse_mixture(json.loads(store.read("plan/spec.json")), settings, run.destination)
    store.create(_path(number), encode_table(to_table(live), row_group_rows=65536))
    return _with_commits(store, number, _read(store, number))  # ours, or that of a driver which was faster


def latest_plan(store: Store) -> Plan:
    """The live plan of an existing run."""
    latest = _latest(store)
    if latest is None:
        raise UsageError(f"expected a run at {store!r}, found no plan there")
    return _with_commits(store, *latest)


def list_source(run: RestoreRun) -> Iterator[Shard]:
    """The shards of the source as it is now."""
    files = open_source(run.source)
    with ThreadPoolExecutor(_READERS) as readers:
        footers = readers.map(lambda found: _row_groups(found[0], found[1], run), files)
        for (store, file), group_rows in zip(files, footers, strict=True):
            yield from shards_of_file(store.url(file.path), file.path, file.version, group_rows, run.shard_rows)


def _row_groups(store: Store, file: FileVersion, run: RestoreRun) -> list[int]:
    """Rows of each row group, from the footer; checks that the columns are there."""
    with store.open_input(file.path) as source:
        try:
            parquet = pq.ParquetFile(source)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UsageError(
                f"expected a Parquet file at {store.url(file.path)}, found one that does not read ({error}); "
                "remove it from the source or mend it"
            ) from None
        for column in filter(None, (run.column, run.gt_column)):
            find_image_column(parquet.schema_arrow, column)
        return [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]


def _carry_over(plan: Plan, live: list[Shard]) -> list[Shard]:
    """The new shards, before them what was restored from files that the source no longer holds."""
    sources = {shard.source for shard in live}
    kept = [s for s in from_table(plan.shards) if s.source not in sources and s.id in plan.done]
    return kept + live


def _sources_unchanged(plan: Plan) -> bool:
    """Whether the files that are still to be read are what they were when the plan was made."""
    versions = {shard.source: shard.version for shard in plan.todo}
    with ThreadPoolExecutor(_READERS) as readers:
        return all(readers.map(lambda source: current_version(source) == versions[source], versions))


def _refuse_mixture(found: dict[str, Any], wanted: dict[str, Any], destination: str) -> None:
    there, here = _flat(found), _flat(wanted)
    differing = [key for key in sorted(there | here) if there.get(key) != here.get(key) and key != "fingerprint"]
    if differing:
        changes = (f"{key}: expected {_short(there.get(key))}, found {_short(here.get(key))}" for key in differing)
        raise UsageError(
            f"{destination} holds a run with other settings ({'; '.join(changes)}); use another destination, or the "
            "same settings"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"method": {"options": {"steps": 2}}} -> {"method.options.steps": 2}"""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _latest(store: Store) -> tuple[int, pa.Table] | None:
    numbers = [int(p[5:-8]) for p in store.list("plan") if p.endswith(".parquet")]
    return (max(numbers), _read(store, max(numbers))) if numbers else None


def _read(store: Store, number: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(_path(number))))


def _with_commits(store: Store, number: int, shards: pa.Table) -> Plan:
    live = set(shards["id"].to_pylist())
    return Plan(number, shards, frozenset(live & _commits.committed_shards(store)))


def _path(number: int) -> str:
    return f"plan/{number:05d}.parquet"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
