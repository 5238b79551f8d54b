"""Rows of a run of files whose file has been packed anew since: the newer row counts, and this one stays as it is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.runs.layout import REJECTED, SOURCE
from tasks.runs.manifest import Entry
from tasks.runs.packed import read_packed
from tasks.runs.sealed import DamagedError, run_parquet
from tasks.runs.shards import Shard
from tasks.storage.store import PARALLEL_READS, Store

_PATH = "image.path"

Rows = Mapping[str, frozenset[int]]
"""Part of `source/` -> the numbers of its rows."""


def superseded_rows(store: Store) -> Rows:
    """The rows of a run's `source/` that a newer version of their file has superseded; none for a run of a dataset."""
    folder = store.sub(SOURCE)
    try:
        old = read_packed(folder).superseded
    except DamagedError:  # `bfr repair` speaks of it
        return {}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        found = readers.map(lambda part: frozenset(_rows_of(folder, part, old[part])), old)
        return {part: rows for part, rows in zip(old, found, strict=True) if rows}


def of_shard(shard: Shard, superseded: Rows) -> frozenset[int]:
    """Those of the rows that are in the file of a shard."""
    return of_file(shard.source, superseded)


def of_file(source: str, superseded: Rows) -> frozenset[int]:
    """Those of the rows that are in the file at an address."""
    return superseded.get(source.rpartition(f"/{SOURCE}/")[2], frozenset())


@dataclass
class Superseded:
    """How many rows of a run a newer version of their file has superseded, and how many of these were rejected."""

    rows: int = 0
    rejects: Counter[str] = field(default_factory=Counter)  # by code


def count_superseded(store: Store, shards: Iterable[Shard], entries: Mapping[str, Entry]) -> Superseded:
    """Counts them over the shards of a run, whose entries of the manifest are given by their ids."""
    found, superseded = Superseded(), superseded_rows(store)
    for shard in shards if superseded else ():
        rows = of_shard(shard, superseded)
        found.rows += sum(number in rows for number in shard.numbers) if rows else 0
        if rows and (path := entries[shard.id][REJECTED]):
            found.rejects.update(one["error"] for one in _rejects(store, path) if one["source_row"] in rows)
    return found


def _rejects(store: Store, path: str) -> list[dict[str, Any]]:
    with run_parquet(store, path) as parquet:
        rejects: list[dict[str, Any]] = parquet.read(columns=["source_row", "error"]).to_pylist()
    return rejects


def _rows_of(folder: Store, part: str, names: Collection[str]) -> Iterable[int]:
    """The rows of these files. Only row groups are read that may have one, by the smallest and largest name in each."""
    wanted, first = sorted(names, key=str.encode), 0
    with folder.open_input(part) as opened:
        parquet = pq.ParquetFile(opened)
        place = parquet.schema.names.index("path")  # of `image`: no other column of a packed file is a struct
        for group in range(parquet.num_row_groups):
            facts = parquet.metadata.row_group(group)
            if _may_have(facts.column(place).statistics, wanted):
                paths = pc.struct_field(parquet.read_row_group(group, columns=[_PATH])["image"], "path")
                hits = pc.indices_nonzero(pc.is_in(paths, value_set=pa.array(wanted, pa.string())))
                yield from (first + row for row in hits.to_pylist())
            first += facts.num_rows


def _may_have(statistics: Any, wanted: list[str]) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    low, high = (bound.encode() for bound in (statistics.min, statistics.max))
    return bisect_left(wanted, low, key=str.encode) < bisect_right(wanted, high, key=str.encode)
