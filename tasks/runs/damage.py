"""What is damaged in a run: the one list that `verify`, a resume and `repair` go by.

A shard is done if its commit says so and all that the commit promises is there. Otherwise it is done again: `mending`
says how.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.datasets.row_groups import DAMAGE
from tasks.datasets.row_ids import digest_of_ids
from tasks.runs.commits import Record, committed, files_of, read_commit
from tasks.runs.layout import COMMITS, DATA, FOLDERS, MANIFEST, REJECTED, REPORT, commit_file
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import Plan, finished_record
from tasks.runs.record import RunRecord, read_record
from tasks.runs.sealed import DamagedError
from tasks.runs.shards import Shard, from_table
from tasks.runs.spec import Settings, settings_digest
from tasks.storage.store import PARALLEL_READS, Store

_DEEP_READERS = 4  # each holds a file in memory
_READ_AHEAD = 256  # shards
_SHOWN = 3  # examples in a message
_FACTS = {"rows": int, "restored": int, "rejected": int, "ids": str, "files": dict, "fingerprint": str}

NOT_DAMAGE = frozenset({"unfinished", "file_extra", "source_missing", "source_changed"})
"""Kinds of problems that `repair` leaves: each says itself what mends it."""

Identities = list[tuple[str, int | None]]
"""(id, row in the source file) of each row of a file; only rejected rows have the latter."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. `kind` is a stable code, `detail` is for people."""

    kind: str
    where: str
    detail: str
    commit: str = ""  # the commit that does not hold, so that its shard is to be done again


@dataclass
class Inspection:
    """One committed shard: its record, unless that is damaged, what was counted, and what is wrong with it."""

    shard: Shard
    record: Record | None = None
    restored: int = 0
    rejected: int = 0
    files: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)

    def add(self, kind: str, where: str, detail: str) -> None:
        self.damage.append(Damage(kind, where, detail, self.shard.commit))


def inspect_shards(store: Store, plan: Plan, settings: Settings | None, *, deep: bool = False) -> Iterator[Inspection]:
    """Each committed shard of the plan, in its order: is the commit the shard's own and one of these settings, and are
    its files there, of their size? `deep` reads them as well: their sha256, and the rows that they hold."""
    done = [shard for shard in from_table(plan.shards) if shard.commit in plan.done]
    check = partial(_inspect, store, settings, None if deep else _sizes(store))
    with ThreadPoolExecutor(_DEEP_READERS if deep else PARALLEL_READS) as readers:
        for start in range(0, len(done), _READ_AHEAD):
            yield from readers.map(check, done[start : start + _READ_AHEAD])


def described(damage: Collection[Damage]) -> str:
    """A few of them, for a message."""
    shown = "; ".join(f"{one.where}: {one.detail}" for one in list(damage)[:_SHOWN])
    return f"{shown}{'; ...' if len(damage) > _SHOWN else ''}"


def closing_record(store: Store, plan: Plan) -> RunRecord | None:
    """run.json, if this plan wrote it, nothing is left to do, and it is sound."""
    try:
        record = finished_record(store, plan)
    except DamagedError:
        return None
    return None if record is None or record_damage(record, plan) else record


def record_damage(record: RunRecord, plan: Plan) -> str:
    """Why a run.json that names this plan is not its; "" if it is."""
    totals = record.get("totals")
    if not isinstance(totals, dict):
        return "a record without totals"
    expected, found = (plan.rows, plan.shards.num_rows), (totals.get("rows"), totals.get("shards"))
    return "" if expected == found else f"{found[0]} rows in {found[1]} shards, expected {expected[0]} in {expected[1]}"


def derived_damage(store: Store, plan: Plan) -> Iterator[Damage]:
    """What is wrong with what a closed run has for its readers. All of it is made from the commits."""
    try:
        manifest = [(entry["shard"], entry["generation"]) for entry in read_manifest(store)]
    except FileNotFoundError:
        yield Damage("manifest_missing", MANIFEST, "expected the list of the run's files")
    except DamagedError as error:
        yield Damage("manifest_damaged", MANIFEST, f"found {error.found}")
    else:
        if manifest != [(shard.id, shard.generation) for shard in from_table(plan.shards)]:
            yield Damage("manifest_differs", MANIFEST, "expected the shards of the live plan, in its order")
    try:
        if not store.read(REPORT).rstrip().endswith(b"</html>"):
            yield Damage("report_damaged", REPORT, "found a page that does not end")
    except FileNotFoundError:
        yield Damage("report_missing", REPORT, "expected the run's page")


def newest_plan(store: Store, plan: Plan) -> int:
    """The highest number of a plan that left a trace, in run.json or in commits that this plan does not know."""
    seen = [plan.number]
    with suppress(DamagedError):
        seen.append((read_record(store) or {}).get("plan", 0))
    for name in sorted(committed(store).difference(plan.commits)):
        with suppress(DamagedError, FileNotFoundError):
            seen.append(read_commit(store, name).get("place", {}).get("plan", 0))
    return max(seen)


def _sizes(store: Store) -> dict[str, int]:
    try:
        return {file.path: file.size for folder in FOLDERS for file in store.versions(folder)}
    except FileNotFoundError:  # an attempt that lost has just removed its file: each one is asked for by itself
        return {}


def _inspect(store: Store, settings: Settings | None, sizes: dict[str, int] | None, shard: Shard) -> Inspection:
    found, where = Inspection(shard), commit_file(shard.commit)
    try:
        record = read_commit(store, shard.commit)
    except FileNotFoundError:
        found.add("commit_missing", where, "it was there a moment ago")
    except DamagedError as error:
        found.add("commit_damaged", where, f"found {error.found}")
    else:
        found.damage += _record_damage(shard, record, settings, strict=sizes is None)
        if all(one.kind == "other_method" for one in found.damage):
            found.record = record
            _look(store, found, sizes) if sizes is not None else _read(store, found)
    return found


def _record_damage(shard: Shard, record: Record, settings: Settings | None, *, strict: bool) -> Iterator[Damage]:
    """What is wrong with a record by itself. `strict`: the method's fingerprint as well, which another version of this
    program may derive differently from the same settings."""
    where, name = commit_file(shard.commit), shard.commit
    if (record.get("shard"), record.get("generation")) != (shard.id, shard.generation):
        detail = f"expected the commit of this shard, found that of {record.get('shard')}.{record.get('generation')}"
        yield Damage("commit_misplaced", where, detail, name)
        return
    odd = [key for key, kind in _FACTS.items() if not isinstance(record.get(key), kind)]
    entries = record["files"] if not odd else {}
    odd += [f"files.{folder}" for folder, entry in entries.items() if not _is_entry(folder, entry, name)]
    if odd:
        yield Damage("commit_damaged", where, f"expected a commit, found one without a sound {', '.join(odd)}", name)
        return
    if record["rows"] != shard.rows or record["restored"] + record["rejected"] != shard.rows:
        counts = (record["rows"], record["restored"], record["rejected"])
        yield Damage("rows_differ", where, f"expected {shard.rows} rows, the commit has {counts}", name)
        return
    if settings is None:
        return
    if record.get("settings") and record["settings"] != settings_digest(settings):
        detail = f"expected settings {settings_digest(settings)}, found {record['settings']}"
        yield Damage("other_settings", where, detail, name)
    elif strict and record["fingerprint"] != settings.get("fingerprint"):
        detail = f"expected method {settings.get('fingerprint')}, found {record['fingerprint']}"
        yield Damage("other_method", f"{COMMITS}/{record['shard']}", detail, name)


def _is_entry(folder: str, entry: Any, commit: str) -> bool:
    """Whether what a commit says of a file can be true."""
    if folder not in FOLDERS or not isinstance(entry, dict):
        return False
    path, size, sha256 = entry.get("path"), entry.get("bytes"), entry.get("sha256")
    is_own = isinstance(path, str) and path.startswith(f"{folder}/{commit}-")
    return is_own and isinstance(size, int) and isinstance(sha256, str)


def _look(store: Store, found: Inspection, sizes: dict[str, int]) -> None:
    """Checks presence and size of a commit's files against a listing, which may be a moment old."""
    assert found.record is not None
    for entry in found.record["files"].values():
        path = entry["path"]
        size = sizes.get(path)
        if size != entry["bytes"]:
            try:
                size = store.info(path).size
            except FileNotFoundError:
                size = None
        if size is None:
            found.add("file_missing", path, f"commit {found.shard.commit} promises it")
        elif size != entry["bytes"]:
            found.add("file_changed", path, f"expected {entry['bytes']} bytes, found {size}")


def _read(store: Store, found: Inspection) -> None:
    """Counts a commit's files, and checks that they are whole and hold the shard's rows."""
    assert found.record is not None
    shard, record, tables = found.shard, found.record, dict[str, Identities]()
    for folder, path in files_of(record).items():
        entry = record["files"][folder]
        try:
            data = store.read(path)
        except FileNotFoundError:
            found.add("file_missing", path, f"commit {shard.commit} promises it")
            continue
        found.files, found.bytes = found.files + 1, found.bytes + len(data)
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            detail = f"expected {entry['bytes']} bytes with sha256 {entry['sha256'][:12]}, found {len(data)} others"
            found.add("file_changed", path, detail)
        elif folder in (DATA, REJECTED):
            try:
                tables[folder] = _identities(data)
            except DAMAGE as error:
                found.add("file_unreadable", path, str(error)[:200])
    found.restored, found.rejected = (len(tables.get(folder, ())) for folder in (DATA, REJECTED))
    if not found.damage:
        for detail in _row_problems(shard, record, tables.get(DATA, []), tables.get(REJECTED, [])):
            found.add("rows_differ", commit_file(shard.commit), detail)


def _identities(data: bytes) -> Identities:
    parquet = pq.ParquetFile(pa.BufferReader(data))
    columns = [name for name in ("id", "source_row") if name in parquet.schema_arrow.names]
    table = parquet.read(columns=columns if "error" in parquet.schema_arrow.names else ["id"])
    rows = table["source_row"].to_pylist() if "source_row" in table.column_names else [None] * table.num_rows
    return list(zip(table["id"].to_pylist(), rows, strict=True))


def _row_problems(shard: Shard, record: Record, data: Identities, rejected: Identities) -> Iterator[str]:
    """Checks the counts, then puts rejected and restored rows back in the source's order to check their digest."""
    counts = (record["rows"], record["restored"], record["rejected"])
    if (len(data) + len(rejected), len(data), len(rejected)) != counts:
        yield f"expected {shard.rows} rows, the commit has {counts}, its files {len(data)} + {len(rejected)}"
        return
    ids: list[str | None] = [None] * shard.rows
    places = {number: index for index, number in enumerate(shard.numbers)}
    for row_id, row in rejected:
        index = -1 if row is None else places.get(row, -1)
        if index < 0 or ids[index] is not None:
            yield f"row {row} of the source is rejected twice, or not in this shard"
            return
        ids[index] = row_id
    restored = (row_id for row_id, _ in data)  # in the order of the source, like `ids`
    whole = [next(restored) if row_id is None else row_id for row_id in ids]
    if digest_of_ids(whole) != record["ids"]:
        twice = [row_id for row_id, n in Counter(whole).items() if n > 1][:_SHOWN]
        yield f"the ids are not those of the source in its order; more than once: {twice}"
