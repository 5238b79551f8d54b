"""Proves a finished run: each file is what its commit says, and each input row is there exactly once.

Needs only the destination. The plan has the rows; a commit record has the files that hold a shard's rows, and a digest
of the rows' ids in the order of the source. The ids in `data/` and `rejected/` must give the same digest.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.datasets.row_groups import DAMAGE
from tasks.datasets.row_ids import digest_of_ids
from tasks.runs import commits
from tasks.runs.layout import COMMITS, DATA, FOLDERS, MANIFEST, RECORD, REJECTED, commit_file
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import Plan, finished_record, latest_plan
from tasks.runs.shards import Shard, from_table
from tasks.runs.spec import read_spec
from tasks.storage.redaction import redact
from tasks.storage.store import Store

_READERS = 4  # each holds a file in memory
_READ_AHEAD = 256  # commit records in memory
_SHOWN_SHARDS = 3  # examples in a problem's detail


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `kind` is a stable code, `detail` is for people."""

    kind: str
    where: str
    detail: str


@dataclass
class _Counts:
    rows: int = 0
    restored: int = 0
    rejected: int = 0
    files: int = 0
    bytes: int = 0


def verify_run(destination: str) -> dict[str, Any]:
    """Checks a whole run; `problems` is empty if all is well. UsageError if there is no run."""
    store = Store(destination)
    plan = latest_plan(store)
    counts, problems = _Counts(), list(_plan_problems(plan))
    keep = set[str]()
    done = [shard for shard in from_table(plan.shards) if shard.commit in plan.done]
    spec = read_spec(store)
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(done), _READ_AHEAD):
            some = done[start : start + _READ_AHEAD]
            records = list(commits.read_commits(store, [shard.commit for shard in some]))
            keep.update(path for record in records for path in commits.files_of(record).values())
            checks = readers.map(lambda pair: _check_shard(store, *pair), zip(some, records, strict=True))
            for record, (found, wrong) in zip(records, checks, strict=True):
                problems += wrong
                _add(counts, found)
                if record["fingerprint"] != spec["fingerprint"]:
                    detail = f"expected method {spec['fingerprint']}, found {record['fingerprint']}"
                    problems.append(Problem("other_method", f"{COMMITS}/{record['shard']}", detail))
    problems += _ending(store, plan, keep, counts)
    return {
        "destination": redact(store.url()),
        "plan": plan.number,
        "shards": plan.shards.num_rows,
        "rows_in": plan.rows,
        **asdict(counts),
        "ok": not problems,
        "problems": [asdict(problem) for problem in problems],
    }


def _plan_problems(plan: Plan) -> Iterator[Problem]:
    """Shards that overlap, that leave out rows of their file, or that are not done."""
    by_file = defaultdict[str, list[Shard]](list)
    missing = []
    for shard in from_table(plan.shards):
        by_file[f"{shard.source} {shard.version}"].append(shard)
        if shard.commit not in plan.done:
            missing.append(shard.commit)
    for shards in by_file.values():
        shards.sort(key=lambda shard: shard.first_row)
        for before, after in pairwise(shards):
            if before.first_row + before.rows != after.first_row:
                detail = f"expected rows from {before.first_row + before.rows}, found {after.first_row}"
                yield Problem("plan_broken", redact(after.source), detail)
    if missing:
        names = ", ".join(missing[:_SHOWN_SHARDS]) + (", ..." if len(missing) > _SHOWN_SHARDS else "")
        detail = f"{len(missing)} of {plan.shards.num_rows} shards have no commit: {names}; run the command again"
        yield Problem("unfinished", f"{COMMITS}/", detail)


def _check_shard(store: Store, shard: Shard, record: commits.Record) -> tuple[_Counts, list[Problem]]:
    """Counts one commit's files, and checks that they are whole and hold the shard's rows."""
    found, problems, tables = _Counts(), [], {}
    for folder, entry in record["files"].items():
        try:
            data = store.read(entry["path"])
        except FileNotFoundError:
            problems.append(Problem("file_missing", entry["path"], f"commit {shard.commit} promises it"))
            continue
        found.files, found.bytes = found.files + 1, found.bytes + len(data)
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            detail = f"expected {entry['bytes']} bytes with sha256 {entry['sha256'][:12]}, found {len(data)} others"
            problems.append(Problem("file_changed", entry["path"], detail))
            continue
        if folder in (DATA, REJECTED):
            try:
                tables[folder] = _identities(data)
            except DAMAGE as error:
                problems.append(Problem("file_unreadable", entry["path"], str(error)[:200]))
    found.restored, found.rejected = (len(tables.get(folder, ())) for folder in (DATA, REJECTED))
    found.rows = found.restored + found.rejected
    if not problems:
        problems += _row_problems(shard, record, tables.get(DATA, []), tables.get(REJECTED, []))
    return found, problems


def _identities(data: bytes) -> list[tuple[str, int | None]]:
    """(id, row in the source file) of each row of a file; only rejected rows have the latter."""
    parquet = pq.ParquetFile(pa.BufferReader(data))
    columns = [name for name in ("id", "source_row") if name in parquet.schema_arrow.names]
    table = parquet.read(columns=columns if "error" in parquet.schema_arrow.names else ["id"])
    rows = table["source_row"].to_pylist() if "source_row" in table.column_names else [None] * table.num_rows
    return list(zip(table["id"].to_pylist(), rows, strict=True))


def _row_problems(
    shard: Shard, record: commits.Record, data: list[tuple[str, int | None]], rejected: list[tuple[str, int | None]]
) -> Iterator[Problem]:
    """Checks the counts, then puts rejected and restored rows back in the source's order to check their digest."""
    where = commit_file(shard.commit)
    counts = (record["rows"], record["restored"], record["rejected"])
    if (len(data) + len(rejected), len(data), len(rejected)) != counts or counts[0] != shard.rows:
        detail = f"expected {shard.rows} rows, the commit has {counts}, its files {len(data)} + {len(rejected)}"
        yield Problem("rows_differ", where, detail)
        return
    ids: list[str | None] = [None] * shard.rows
    for row_id, row in rejected:
        index = -1 if row is None else row - shard.first_row
        if not 0 <= index < shard.rows or ids[index] is not None:
            yield Problem("rows_differ", where, f"row {row} of the source is rejected twice, or not in this shard")
            return
        ids[index] = row_id
    restored = (row_id for row_id, _ in data)  # in the order of the source, like `ids`
    whole = [next(restored) if row_id is None else row_id for row_id in ids]
    if digest_of_ids(whole) != record["ids"]:
        twice = [row_id for row_id, n in Counter(whole).items() if n > 1][:_SHOWN_SHARDS]
        yield Problem(
            "rows_differ", where, f"the ids are not those of the source in its order; more than once: {twice}"
        )


def _ending(store: Store, plan: Plan, keep: set[str], counts: _Counts) -> Iterator[Problem]:
    """Checks a finished run as a whole: its totals, its manifest, and that no file is without a commit."""
    if plan.todo_count:
        return
    record = finished_record(store, plan)
    if record is None:
        yield Problem("unfinished", RECORD, "all shards are done, but the run is not finished; run the command again")
        return
    for path in (path for folder in FOLDERS for path in store.list(folder)):
        if path not in keep:
            yield Problem("file_extra", path, "no commit names it; `bfr vacuum` removes it")
    totals = {name: record["totals"][name] for name in ("rows", "restored", "rejected")}
    if totals != (found := {name: getattr(counts, name) for name in totals}):
        yield Problem("totals_differ", RECORD, f"expected {found}, found {totals}")
    manifest = read_manifest(store)
    if [entry["shard"] for entry in manifest] != plan.shards["id"].to_pylist():
        yield Problem("manifest_differs", MANIFEST, "expected the shards of the live plan, in its order")
    named = {entry[folder] for folder in (DATA, REJECTED) for entry in manifest if entry[folder]}
    if not named <= keep:
        yield Problem("manifest_differs", MANIFEST, f"no commit names {sorted(named - keep)[:_SHOWN_SHARDS]}")


def _add(total: _Counts, found: _Counts) -> None:
    for name, value in asdict(found).items():
        setattr(total, name, getattr(total, name) + value)
