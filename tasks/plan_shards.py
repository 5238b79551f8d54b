"""Plans a run: which shards there are, decided once and frozen.

    plan/spec.json       what decides the output; another setting on the same destination is refused
    plan/00000.parquet   the live shards; create-only; a resume works from it and does not list the source
    plan/00001.parquet   the next one, made when a finished run is started again and the source has grown, or when
                         rejected rows are to be tried again: their shards have a new generation then

The last plan is the live one. A file that changed loses its old shards to its new ones; what was restored
from a file that has since gone from the source is kept, unless the run is told to retire it. A file that goes
half done is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.detectors import photo_settings
from bfr_models.faces.recognisers import run_gate, run_recogniser
from bfr_models.metrics.measures import run_measures
from tasks.config.restore import RestoreRun, semantic_settings
from tasks.datasets.row_groups import DAMAGE, is_damage
from tasks.datasets.writer import encode_table, find_image_column
from tasks.runs import commits
from tasks.runs.shards import Shard, current_version, from_table, shards_of_file, to_table
from tasks.runs.single_writer import run_store
from tasks.storage.filesystem import redact, without_secrets
from tasks.storage.store import FileVersion, Store, open_source

_READERS = 16
_RETRIED = b"bfr:retry_rejected"


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
        return json.loads((self.shards.schema.metadata or {}).get(_RETRIED, b"[]"))


def settings_of(run: RestoreRun) -> dict[str, Any]:
    """What decides the run's output, as `plan/spec.json` holds it. UsageError if it cannot be done."""
    resolved = run.resolve()
    semantic = semantic_settings(
        run, resolved, run_recogniser(run), run_gate(run), photo_settings(run), run_measures(run)
    )
    settings: dict[str, Any] = json.loads(json.dumps({"source": redact(run.source.rstrip("/")), **semantic}))
    return settings


def settings_digest(settings: dict[str, Any]) -> str:
    """8 hex digits, the same for settings that may share a destination."""
    given = {key: value for key, value in _flat(settings).items() if value is not None and key != "fingerprint"}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def check_settings(run: RestoreRun) -> dict[str, Any]:
    """`settings_of` the run. UsageError before any work if it cannot be done, or not into this place."""
    settings = settings_of(run)
    if f"{run.destination}/".startswith(f"{run.source.rstrip('/')}/"):
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
        plan = replace(_with_commits(store, *latest), given=run.source)
        _reopen(store, plan)
        retry = set(run.retry_rejected) if _is_new_retry(store, plan, run) else set()
        if plan.todo_count and not retry and _sources_unchanged(plan):
            return replace(plan, resumed=True)
    live, damaged = list_source(run)
    left_out = tuple(f"left out: {redact(url)} does not read ({why})" for url, why in damaged.items())
    if latest is not None:
        kept = _carried_over(plan, live, damaged, run.retire_deleted)
        live = kept + _tried_again(store, plan, live, retry)
        if [shard.commit for shard in live] == plan.commits:
            finished = not plan.todo_count and finished_record(store, plan) is not None
            return replace(plan, damaged=left_out, finished=finished)
    if not live:
        raise UsageError(f"expected rows in {run.source}, found Parquet files without any")
    number = 0 if latest is None else latest[0] + 1
    store.conditional = run_store(run.destination).conditional
    store.create("plan/spec.json", json.dumps(settings, indent=2).encode())
    _refuse_mixture(json.loads(store.read("plan/spec.json")), settings, run.destination)
    table = to_table(live).replace_schema_metadata({_RETRIED: json.dumps(sorted(run.retry_rejected))})
    store.create(_path(number), encode_table(table, row_group_rows=65536))
    made = _with_commits(store, number, _read(store, number))  # ours, or that of a driver which was faster
    return replace(made, given=run.source, damaged=left_out)


def latest_plan(store: Store) -> Plan:
    """The live plan of an existing run."""
    latest = _latest(store)
    if latest is None:
        raise UsageError(f"expected a run at {store!r}, found no plan there")
    return _with_commits(store, *latest)


def require_planned(store: Store, shard: Shard) -> None:
    """BfrError if a newer plan than the shard's is without it. No listing, as long as there is no newer one."""
    try:
        store.read(_path(shard.plan + 1))
    except FileNotFoundError:
        return
    if shard.commit not in latest_plan(store).commits:
        raise BfrError(
            f"expected shard {shard.commit} in the live plan, found a newer plan without it: the same command has "
            "planned anew elsewhere; run it again when that is done"
        )


def list_source(run: RestoreRun) -> tuple[list[Shard], dict[str, str]]:
    """The shards of the source as it is now, and the files that do not read, with what is wrong with them. UsageError
    for such files unless the run leaves them out and there are others."""
    files = open_source(run.source)
    shards: list[Shard] = []
    damaged: dict[str, str] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        footers = readers.map(lambda found: _row_groups(found[0], found[1], run), files)
        for (store, file), found in zip(files, footers, strict=True):
            url = store.url(file.path)
            if isinstance(found, str):
                damaged[url] = found
            else:
                shards.extend(shards_of_file(url, file.name, file.version, found, run.shard_rows))
    if damaged and not (run.leave_out_damaged and shards):
        url, why = next(iter(damaged.items()))
        raise UsageError(
            f"expected a Parquet file at {redact(url)}, found one that does not read ({why}); "
            "remove it from the source or mend it"
        )
    return shards, damaged


def _row_groups(store: Store, file: FileVersion, run: RestoreRun) -> list[int] | str:
    """Rows of each row group, from the footer, or why it does not read; checks that the columns are there."""
    with store.open_input(file.path) as source:
        try:
            parquet = pq.ParquetFile(source)
        except DAMAGE as error:
            if not is_damage(error):
                raise
            return str(error)
        for column in filter(None, (run.column, run.gt_column, run.mask_column)):
            find_image_column(parquet.schema_arrow, column)
        return [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]


def _carried_over(plan: Plan, live: list[Shard], damaged: Iterable[str], retire_deleted: bool) -> list[Shard]:
    """The planned shards of files that the source no longer holds, and those that were restored from files that it now
    holds damaged. UsageError where a file is gone before it was done: the plan without it would lose its rows without a
    word."""
    sources, unread = {without_secrets(shard.source) for shard in live}, set(map(without_secrets, damaged))
    absent = [shard for shard in from_table(plan.shards) if shard.source not in sources]
    kept = [shard for shard in absent if (shard.commit in plan.done if shard.source in unread else not retire_deleted)]
    _require_done(plan, kept)
    return kept


def _require_done(plan: Plan, gone: list[Shard]) -> None:
    if (undone := next((shard for shard in gone if shard.commit not in plan.done), None)) is None:
        return
    of_the_file = [shard for shard in gone if shard.source == undone.source]
    rows = sum(shard.rows for shard in of_the_file)
    left = sum(shard.rows for shard in of_the_file if shard.commit not in plan.done)
    raise UsageError(
        f"expected {redact(undone.source)} until it is done, found it gone with {left} of its {rows} rows to do; "
        "put it back as it was, or have all rows of files that are gone leave the run (`retire_deleted: true` in "
        "--config's file)"
    )


def _is_new_retry(store: Store, plan: Plan, run: RestoreRun) -> bool:
    """Whether rejected rows are to be tried again, and the plan is not the one that was made for it: that one is
    resumed until it is finished."""
    if not run.retry_rejected:
        return False
    return plan.retried != sorted(run.retry_rejected) or finished_record(store, plan) is not None


def finished_record(store: Store, plan: Plan) -> dict[str, Any] | None:
    """run.json, if it is that of this plan and nothing is to do: a run that lost a commit since is not finished."""
    return None if plan.todo_count else _closing_record(store, plan)


def _closing_record(store: Store, plan: Plan) -> dict[str, Any] | None:
    if not store.exists("run.json"):
        return None
    record: dict[str, Any] = json.loads(store.read("run.json"))
    return record if record.get("plan") == plan.number else None


def _reopen(store: Store, plan: Plan) -> None:
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


def _tried_again(store: Store, plan: Plan, live: list[Shard], codes: set[str]) -> list[Shard]:
    """The shards in their generations: the next one where rows were rejected for one of the reasons."""
    generations = {shard.id: shard.generation for shard in from_table(plan.shards)}
    live = [replace(shard, generation=generations.get(shard.id, 0)) for shard in live]
    if not codes:
        return live
    done = [shard.commit for shard in live if shard.commit in plan.done]
    records = commits.read_commits(store, done)
    again = {name for name, record in zip(done, records, strict=True) if codes & record["rejects"].keys()}
    return [replace(s, generation=s.generation + 1) if s.commit in again else s for s in live]


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
    numbers = _numbers(store)
    return (max(numbers), _read(store, max(numbers))) if numbers else None


def _numbers(store: Store) -> list[int]:
    return [int(path[5:-8]) for path in store.list("plan") if path.endswith(".parquet")]


def _read(store: Store, number: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(_path(number))))


def _with_commits(store: Store, number: int, shards: pa.Table) -> Plan:
    live = {shard.commit for shard in from_table(shards)}
    return Plan(number, shards, frozenset(live & commits.committed(store)))


def _path(number: int) -> str:
    return f"plan/{number:05d}.parquet"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
