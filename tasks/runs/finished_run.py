"""A finished run as one table: its plain columns in memory, its pictures and features read where they are needed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bfr_models.errors import BfrError, UsageError
from bfr_models.metrics.frechet import FeatureSource
from tasks.datasets.row_groups import plain_columns, take_rows, values
from tasks.runs.commits import commit_name
from tasks.runs.plan import latest_plan, require_finished
from tasks.runs.pointer import address, read_pointer
from tasks.runs.shards import from_table
from tasks.scoring.face_vectors import SOURCE_KEY
from tasks.scoring.scorer import KEPT_ORIGINAL, RESTORED
from tasks.storage.store import Store

Rows = NDArray[np.int64]
"""Rows of a run by their number: 0 is the first row of the first file of the manifest."""

_READERS = 16


@dataclass(frozen=True)
class RunFile:
    """One committed shard: its files, which of the run's rows it holds, and where these come from."""

    shard: str
    data: str
    features: str | None
    rejected: str | None
    start: int
    stop: int
    source: str  # the file of SRC
    source_rows: int  # of that file: those in `data`, and the rejected


@dataclass(frozen=True)
class FinishedRun:
    """`schema` is that of all data files together, `table` the plain columns of all rows."""

    store: Store
    record: dict[str, Any]
    commits: list[str]
    files: list[RunFile]
    schema: pa.Schema
    table: pa.Table

    @cached_property
    def ids(self) -> list[str]:
        return list(values(self.table["id"]))

    @cached_property
    def scored_faces(self) -> NDArray[np.int64]:
        """(n,) how many faces of each row are in `features/`."""
        faces = self.table["faces"].combine_chunks()
        scored = pc.is_in(
            pc.struct_field(pc.list_flatten(faces), "outcome"), value_set=pa.array([RESTORED, KEPT_ORIGINAL])
        )
        parents = pc.list_parent_indices(faces).to_numpy()
        return np.bincount(parents[scored.to_numpy(zero_copy_only=False)], minlength=len(faces)).astype(np.int64)

    def places(self, rows: Rows) -> tuple[list[str], list[int]]:
        """The data file of each row, and its row there."""
        files = np.searchsorted([file.stop for file in self.files], rows, side="right")
        starts = np.array([file.start for file in self.files], np.int64)
        return [self.files[number].data for number in files], (rows - starts[files]).tolist()

    def origins(self, rows: Rows) -> tuple[list[str], list[int]]:
        """The file of SRC that each row was restored from, and its row there."""
        files = np.searchsorted([file.stop for file in self.files], rows, side="right")
        return [self.files[number].source for number in files], self._source_rows[rows].tolist()

    @cached_property
    def _source_rows(self) -> Rows:
        """(n,) the rows of the source's files: each shard's but the rejected, in their order."""
        first_rows = {shard.id: shard.first_row for shard in from_table(latest_plan(self.store).shards)}
        with ThreadPoolExecutor(_READERS) as readers:
            firsts = [first_rows[file.shard] for file in self.files]
            return np.concatenate(list(readers.map(self._restored_rows, self.files, firsts)))

    def _restored_rows(self, file: RunFile, first: int) -> Rows:
        rows = np.arange(first, first + file.source_rows)
        if file.rejected is None:
            return rows
        with self.store.open_input(file.rejected) as opened:
            return np.setdiff1d(rows, pq.read_table(opened, columns=["source_row"])["source_row"].to_numpy())

    def read(self, rows: Rows, columns: Sequence[str] | None = None) -> Iterator[tuple[Rows, pa.Table]]:
        """Some rows, ascending, with all their columns or some; a row group at a time, in the file's own schema."""
        for file in self.files:
            own = rows[np.searchsorted(rows, file.start) : np.searchsorted(rows, file.stop)]
            if not len(own):
                continue
            whole = io.BytesIO(self.store.read(file.data)) if columns is None else self.store.open_input(file.data)
            with whole as source:
                parquet, first = pq.ParquetFile(source), file.start
                for group in range(parquet.num_row_groups):
                    stop = first + parquet.metadata.row_group(group).num_rows
                    here = own[np.searchsorted(own, first) : np.searchsorted(own, stop)]
                    if len(here):
                        table = parquet.read_row_group(group, columns=columns)
                        yield here, take_rows(table, (here - first).tolist())
                    first = stop

    def has_face_vectors(self, column: str) -> bool:
        """Whether all features files have this column: those of an earlier version have no `embedding_gt`."""

        def names(path: str) -> list[str]:
            with self.store.open_input(path) as opened:
                return list(pq.read_schema(opened).names)

        with ThreadPoolExecutor(_READERS) as readers:
            return all(column in found for found in readers.map(names, [f.features for f in self.files if f.features]))

    def face_vectors(self, file: RunFile, column: str) -> tuple[Rows, NDArray[np.float32], FeatureSource | None]:
        """One column of a features file: the row of each face that has a vector, the vectors (m, d), and what made
        them, where the file says it. BfrError where the file is not that of the rows."""
        rows, empty = np.arange(file.start, file.stop), np.empty((0, 0), np.float32)
        if file.features is None:
            return rows[:0], empty, None
        with self.store.open_input(file.features) as opened:
            table = pq.read_table(opened, columns=["id", column])
        owners = np.repeat(rows, self.scored_faces[file.start : file.stop])
        if [self.ids[row] for row in owners] != table["id"].to_pylist():
            raise BfrError(
                f"expected in {file.features} the scored faces of {file.data}, in their order; found others; "
                "`bfr verify` says what is wrong with the run"
            )
        about = (table.schema.metadata or {}).get(SOURCE_KEY)
        cells = table[column].combine_chunks()
        there = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        if not there.any():
            return rows[:0], empty, None
        vectors = pc.list_flatten(cells).to_numpy(zero_copy_only=False).reshape(int(there.sum()), -1)
        return owners[there], vectors, FeatureSource(**json.loads(about)) if about else None


def open_run(url: str) -> FinishedRun:
    """Reads all of a finished run but pictures and features; of generations it is the current one. UsageError for
    what is none."""
    store = Store(url)
    pointer = read_pointer(store)
    if pointer.begun:
        if pointer.generation is None:
            raise UsageError(f"expected a current generation at {store!r}, found none; `bfr reprocess` makes one")
        store = Store(address(url, pointer.generation))
    _, record = require_finished(store)
    run = _open(store, record)
    if not run.files:
        raise UsageError(f"expected restored rows in the run at {store!r}, found none: all were rejected")
    return run


def open_last_finished(url: str) -> FinishedRun:
    """What a run was when it was last finished: by now it may have more to do. It may have no rows."""
    store = Store(url)
    return _open(store, json.loads(store.read("run.json")))


def _open(store: Store, record: dict[str, Any]) -> FinishedRun:
    manifest = pq.read_table(pa.BufferReader(store.read("manifest.parquet"))).to_pylist()
    commits = [commit_name(entry["shard"], entry["generation"]) for entry in manifest]
    entries = [entry for entry in manifest if entry["data"]]
    if not entries:
        return FinishedRun(store, record, commits, [], pa.schema([]), pa.table({"id": pa.array([], pa.string())}))
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda entry: _plain(store, entry["data"]), entries))
    try:
        schema = pa.unify_schemas([schema for schema, _ in found], promote_options="permissive")
        table = pa.concat_tables([table for _, table in found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(f"expected data files of one kind in {store!r}, found others: {error}") from error
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
    with store.open_input(path) as source:
        parquet = pq.ParquetFile(source)
        return parquet.schema_arrow, parquet.read(columns=plain_columns(parquet.schema_arrow))
