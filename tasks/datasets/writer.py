"""Writes Parquet datasets with an image column, a whole file at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.datasets.overwriting import marked
from tasks.storage.store import Store

MAX_FILE_BYTES = 512 * 2**20  # a file is in memory until it is written
_MAX_PIECE_BYTES = 2**30
MAX_GROUP_BYTES = 128 * 2**20  # and so is a row group, once more, when it is read


class DatasetWriter:
    """Writes rows as `part-00000.parquet`, `part-00001.parquet`, ..., each built in memory and then put whole.

    A file ends at `rows_per_file` rows or `max_file_bytes`, a row group at `row_group_rows` rows or 128 MiB. Once the
    first is there, all parts of an earlier dataset are removed, and if an exception leaves the block, the files written
    so far: half a dataset would look like a whole one. With a `schema` but no rows, one empty file is written, so that
    the columns are known. `mark` says whose the files are (`overwriting`).
    """

    def __init__(
        self,
        store: Store,
        rows_per_file: int,
        row_group_rows: int,
        schema: pa.Schema | None = None,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        mark: str | None = None,
    ) -> None:
        if rows_per_file < 1 or row_group_rows < 1:
            raise UsageError(
                f"expected at least 1 row per file and row group, found {rows_per_file} and {row_group_rows}"
            )
        self._store, self._mark = store, mark
        self._schema = None if schema is None else marked(schema, mark)
        self._rows_per_file, self._row_group_rows = rows_per_file, row_group_rows
        self._max_file_bytes = max_file_bytes
        self._file: _FileInMemory | None = None
        self.files: list[str] = []
        self.rows = 0
        self.bytes = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows. All tables must have the given schema, or else that of the first one: UsageError otherwise."""
        if self._schema is None:
            self._schema = marked(table.schema, self._mark)
        table = _conform(table, self._schema)
        while table.num_rows:
            file = self._file = self._file or _FileInMemory(self._schema)
            head = table.slice(0, min(self._row_group_rows - file.pending, self._rows_per_file - file.rows))
            table = table.slice(head.num_rows)
            file.add(head)
            if file.pending == self._row_group_rows or file.pending_bytes >= MAX_GROUP_BYTES:
                file.end_group()
            if file.rows == self._rows_per_file or file.size >= self._max_file_bytes:
                self._publish(file)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for name in self.files:
                self._store.delete(name)
            return
        if self._file is None and self._schema is not None and not self.files:
            self._file = _FileInMemory(self._schema)
        if self._file is not None:
            self._publish(self._file)

    def _publish(self, file: _FileInMemory) -> None:
        name = f"part-{len(self.files):05d}.parquet"
        data = file.finish()
        self._store.write(name, data)
        for other in self._store.list() if not self.files else ():
            if re.fullmatch(r"part-\d{5}\.parquet", other) and other != name:
                self._store.delete(other)
        self._file = None
        self.files.append(name)
        self.rows += file.rows
        self.bytes += len(data)


class _FileInMemory:
    """A Parquet file under construction; rows are pending until their row group is complete."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, schema, **_encoding(schema))
        self._group: list[pa.Table] = []
        self.rows = 0
        self.pending = 0
        self.pending_bytes = 0

    @property
    def size(self) -> int:
        """Bytes so far: the complete row groups as encoded, the pending one as it is in memory."""
        return self._sink.tell() + self.pending_bytes

    def add(self, table: pa.Table) -> None:
        self._group.append(table)
        self.rows += table.num_rows
        self.pending += table.num_rows
        self.pending_bytes += table.nbytes

    def end_group(self) -> None:
        if self.pending:
            self._writer.write_table(pa.concat_tables(self._group), row_group_size=self.pending)
        self._group, self.pending, self.pending_bytes = [], 0, 0

    def finish(self) -> bytes:
        self.end_group()
        self._writer.close()
        return self._sink.getvalue()


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if set(table.column_names) != set(schema.names):
        raise UsageError(
            f"expected rows with the columns {', '.join(schema.names)}, found {', '.join(table.column_names)}; "
            "make separate datasets of them"
        )
    table = table.select(schema.names)
    if table.schema.equals(schema):  # no cast without need: Arrow's is broken for slices of structs
        return table.replace_schema_metadata(schema.metadata)
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"expected columns of the same types in all files, found others: {error}") from error


def rename_clashing(names: Sequence[str], reserved: Collection[str]) -> list[str]:
    """Column names that can stand beside `reserved` ones: `source_` is put before a clashing one until it is unique.
    Names clash if they differ in case only, too: SQL does not tell them apart."""
    taken = {name.casefold() for name in reserved}
    given = {name.casefold() for name in names}
    renamed = []
    for name in names:
        aside = name
        while aside.casefold() in taken or (aside != name and aside.casefold() in given):
            aside = f"source_{aside}"
        if aside != name:
            taken.add(aside.casefold())
        renamed.append(aside)
    return renamed


def table_of(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table. In pieces, because Arrow puts at most 2 GiB of bytes inside a struct into one."""
    pieces, first, size = [], 0, 0
    for place, row in enumerate(rows):
        more = sum(len(cell.get("bytes") or b"") for cell in row.values() if isinstance(cell, dict))
        if size + more > _MAX_PIECE_BYTES and place > first:
            pieces.append(pa.Table.from_pylist(list(rows[first:place]), schema=schema))
            first, size = place, 0
        size += more
    return pa.concat_tables([*pieces, pa.Table.from_pylist(list(rows[first:]), schema=schema)])


def encode_table(table: pa.Table, row_group_rows: int) -> bytes:
    """A table as one whole Parquet file. A row group has so many rows, or 128 MiB."""
    file = _FileInMemory(table.schema)
    step = row_group_rows if table.nbytes <= MAX_GROUP_BYTES else 1
    for start in range(0, table.num_rows, step):
        file.add(table.slice(start, step))
        if file.pending >= row_group_rows or file.pending_bytes >= MAX_GROUP_BYTES:
            file.end_group()
    return file.finish()


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """zstd, dictionaries and statistics for all columns but raw bytes and vectors of floats.

    Images are compressed already, and the smallest and largest of them mean nothing to a reader. Vectors hardly ever
    repeat, so a dictionary only costs: BYTE_STREAM_SPLIT reads four times as fast, in two thirds of the space.
    """
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(sink).schema  # options go by the paths of leaf columns, which only Parquet's schema has
    columns = [leaves.column(i) for i in range(len(leaves))]
    raw = {c.path for c in columns if c.physical_type == "BYTE_ARRAY" and c.logical_type.type == "NONE"}
    vectors = {c.path for c in columns if c.physical_type == "FLOAT" and c.max_repetition_level}
    rest = [c.path for c in columns if c.path not in raw | vectors]
    return {
        "compression": {c.path: "none" if c.path in raw else "zstd" for c in columns},
        "use_dictionary": rest,
        "write_statistics": rest,
        "column_encoding": dict.fromkeys(vectors, "BYTE_STREAM_SPLIT"),
    }
