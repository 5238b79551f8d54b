"""A finished run as one table: its plain columns in memory, its images and features read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from tasks.datasets.row_groups import plain_columns, read_groups, take_rows, values
from tasks.runs.layout import RECORD, commit_name
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import latest_plan, require_finished
from tasks.runs.pointer import address, read_pointer
from tasks.runs.record import read_record
from tasks.runs.sealed import run_parquet
from tasks.runs.shards import from_table
from tasks.storage.store import PARALLEL_READS, Store

Rows = NDArray[np.int64]
"""Row numbers within a run: 0 is the first row of the first file of the manifest."""


@dataclass(frozen=True)
class RunFile:
    """One committed shard: its files, the rows of the run that it holds, and the source file they come from."""

    shard: str
    data: str
    features: str | None
    rejected: str | None
    start: int
    stop: int
    source: str  # the source file that it was restored from
    source_rows: int  # rows that it covers there: those in `data` and those rejected


@dataclass(frozen=True)
class FinishedRun:
    """`schema` unifies those of all data files; `table` has the plain columns of all rows."""

    store: Store
    record: dict[str, Any]
    commits: list[str]
    files: list[RunFile]
    schema: pa.Schema
    table: pa.Table

    @cached_property
    def ids(self) -> list[str]:
        return list(values(self.table["id"]))

    def places(self, rows: Rows) -> tuple[list[str], list[int]]:
        """The data file of each row, and the row's number in it."""
        files = np.searchsorted([file.stop for file in self.files], rows, side="right")
        starts = np.array([file.start for file in self.files], np.int64)
        return [self.files[number].data for number in files], (rows - starts[files]).tolist()

    def origins(self, rows: Rows) -> tuple[list[str], list[int]]:
        """The source file that each row was restored from, and the row's number in it."""
        files = np.searchsorted([file.stop for file in self.files], rows, side="right")
        return [self.files[number].source for number in files], self.source_rows[rows].tolist()

    @cached_property
    def source_rows(self) -> Rows:
        """(n,) the number of each row in its source file: rejected rows have no place in `data`, so they leave gaps."""
        shards = {shard.id: shard for shard in from_table(latest_plan(self.store).shards)}
        with ThreadPoolExecutor(PARALLEL_READS) as readers:
            covered = [shards[file.shard].numbers for file in self.files]
            rejected = [file.rejected for file in self.files]
            return np.concatenate(list(readers.map(partial(restored_rows, self.store), covered, rejected)))

    def read(self, rows: Rows, columns: Sequence[str] | None = None) -> Iterator[tuple[Rows, pa.Table]]:
        """Reads `rows` (ascending), with all columns or some; yields row groups one by one, with the file's schema."""
        for file in self.files:
            own = rows[np.searchsorted(rows, file.start) : np.searchsorted(rows, file.stop)]
            if not len(own):
                continue
            with run_parquet(self.store, file.data, whole=columns is None) as parquet:
                first = file.start
                for group in range(parquet.num_row_groups):
                    stop = first + parquet.metadata.row_group(group).num_rows
                    here = own[np.searchsorted(own, first) : np.searchsorted(own, stop)]
                    if len(here):
                        table = read_groups(parquet, range(group, group + 1), columns)
                        yield here, take_rows(table, (here - first).tolist())
                    first = stop


def restored_rows(store: Store, covered: Sequence[int], rejected: str | None) -> Rows:
    """(n,) the row in the source file of each row of a data file: those that its shard covers and has not rejected."""
    rows = np.array(covered, np.int64)
    if rejected is None:
        return rows
    with run_parquet(store, rejected) as parquet:
        return np.setdiff1d(rows, parquet.read(columns=["source_row"])["source_row"].to_numpy())


def current_run(url: str) -> Store:
    """The run at a URL or, of generations, the current one. UsageError if none is current."""
    store = Store(url)
    pointer = read_pointer(store)
    if not pointer.begun:
        return store
    if pointer.generation is None:
        raise UsageError(f"expected a current generation at {store}, found none; run `bfr reprocess` to make one")
    return Store(address(url, pointer.generation))


def open_run(url: str) -> FinishedRun:
    """Reads a finished run, or the current one of generations, except its images and features. UsageError for anything
    else."""
    store = current_run(url)
    _, record = require_finished(store)
    run = _open(store, record)
    if not run.files:
        raise UsageError(f"expected restored rows in the run at {store}, found none: every row was rejected")
    return run


def open_last_finished(url: str) -> FinishedRun:
    """The run as it was last finished, though it may have more to do by now. It may have no rows."""
    store = Store(url)
    record = read_record(store)
    if record is None:
        raise UsageError(f"expected a run at {store} that has been finished, found no {RECORD}")
    return _open(store, record)


def _open(store: Store, record: dict[str, Any]) -> FinishedRun:
    manifest = read_manifest(store)
    commits = [commit_name(entry["shard"], entry["generation"]) for entry in manifest]
    entries = [entry for entry in manifest if entry["data"]]
    if not entries:
        return FinishedRun(store, record, commits, [], pa.schema([]), pa.table({"id": pa.array([], pa.string())}))
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        found = list(readers.map(lambda entry: _plain(store, entry["data"]), entries))
    try:
        schema = pa.unify_schemas([schema for schema, _ in found], promote_options="permissive")
        table = pa.concat_tables([table for _, table in found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(f"expected data files with compatible columns in {store}, found others: {error}") from error
    stops = np.cumsum([table.num_rows for _, table in found]).tolist()
    files = [
        RunFile(
            entry["shard"],
            entry["data"],
            entry["features"],
            entry["rejected"],
            start,
            stop,
            entry["source"],
            entry["rows"],
        )
        for entry, start, stop in zip(entries, [0, *stops], stops, strict=False)
    ]
    return FinishedRun(store, record, commits, files, schema, table.combine_chunks())


def _plain(store: Store, path: str) -> tuple[pa.Schema, pa.Table]:
    with run_parquet(store, path) as parquet:
        return parquet.schema_arrow, parquet.read(columns=plain_columns(parquet.schema_arrow))
