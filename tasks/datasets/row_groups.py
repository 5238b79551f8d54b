"""Reads row groups of Parquet files, some of which may be damaged, and values that Python cannot represent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from bfr_models.errors import UsageError
from tasks.storage.local_disk import NotAFileError
from tasks.storage.redaction import redact
from tasks.storage.store import FileVersion, Store

_MAX_AT_ONCE = 2**30  # bytes of row groups that are read in one piece
_BATCH_BYTES = 128 * 2**20
_NOT_IN_PYTHON = (ValueError, OverflowError)  # text that is not UTF-8; nanoseconds; years beyond 9999

DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last: for names of columns
"""What pyarrow raises for damaged files. Storage errors are among them: `is_damage` tells them apart."""


def is_damage(error: BaseException) -> bool:
    """Whether the file's content is wrong. Otherwise its storage failed, which may be transient.

    pyarrow raises a plain `OSError` without errno for damaged content; errors of disks and networks have one.
    """
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)


@contextmanager
def opened_parquet(store: Store, file: FileVersion) -> Iterator[pq.ParquetFile]:
    """A Parquet file of a source, for commands that read all of it. UsageError, which names it, if it is none."""
    try:
        with store.open_input(file.path) as opened:
            yield pq.ParquetFile(opened)
    except (FileNotFoundError, NotAFileError) as error:
        raise UsageError(
            f"expected a file at {redact(store.url(file.path))}, found {error.strerror or error}; remove it"
        ) from error
    except DAMAGE as error:
        if not is_damage(error):
            raise
        raise UsageError(
            f"expected a whole Parquet file at {redact(store.url(file.path))}, found one that is damaged or of another "
            f"kind ({error}); write it again, or take it out"
        ) from error


def read_row_groups(
    parquet: pq.ParquetFile, groups: range, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[int, str]]:
    """Some row groups, all columns by default, and why rows (counted from the first) could not be read: these are
    null in the table."""
    names = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
    try:
        return read_groups(parquet, groups, names), {}
    except DAMAGE as error:
        if not is_damage(error):
            raise
    tables: list[pa.Table] = []  # one row group after the other, to lose the damaged ones only
    unread: dict[int, str] = {}
    first = 0
    for group in groups:
        rows = parquet.metadata.row_group(group).num_rows
        try:
            tables.append(read_groups(parquet, range(group, group + 1), names))
        except DAMAGE as error:
            if not is_damage(error):
                raise
            unread |= dict.fromkeys(range(first, first + rows), f"row group {group} does not read: {error}"[:500])
            tables.append(_nulls(pa.schema([parquet.schema_arrow.field(name) for name in names]), rows))
        first += rows
    return pa.concat_tables(tables), unread


def batches(parquet: pq.ParquetFile, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows of a file, up to so many at a time, and fewer where they are large."""
    groups = range(parquet.num_row_groups)
    fitting = (_rows_of(parquet, range(group, group + 1), _BATCH_BYTES) for group in groups)
    yield from _batches(parquet, groups, columns, min(rows, *fitting, rows))


def read_groups(parquet: pq.ParquetFile, groups: range, names: Sequence[str] | None = None) -> pa.Table:
    """Row groups of any size. Arrow reads at most 2 GiB of bytes inside a struct at once, so that larger ones are read
    piece by piece."""
    size = sum(parquet.metadata.row_group(group).total_byte_size for group in groups)
    if size <= _MAX_AT_ONCE:
        try:
            return parquet.read_row_groups(groups, columns=names)
        except pa.ArrowNotImplementedError:  # equal values are stored once, and make more than the footer says
            pass
    pieces = list(_batches(parquet, groups, names, _rows_of(parquet, groups, _BATCH_BYTES)))
    return pa.Table.from_batches(pieces) if pieces else parquet.read_row_groups(groups, columns=names)


def _rows_of(parquet: pq.ParquetFile, groups: range, size: int) -> int:
    """How many rows of these groups have about so many bytes, at least 1."""
    found = [parquet.metadata.row_group(group) for group in groups]
    rows, total = sum(group.num_rows for group in found), sum(group.total_byte_size for group in found)
    return max(1, size * rows // max(total, 1))


def _batches(
    parquet: pq.ParquetFile, groups: range, names: Sequence[str] | None, step: int
) -> Iterator[pa.RecordBatch]:
    """The rows of some groups, `step` at a time; fewer from where so many are more than Arrow can read at once."""
    done = 0
    while True:
        skip = done
        try:
            for batch in parquet.iter_batches(step, row_groups=list(groups), columns=names):
                rest = batch.slice(min(skip, batch.num_rows))
                skip -= batch.num_rows - rest.num_rows
                if rest.num_rows:
                    yield rest
                    done += rest.num_rows
            return
        except pa.ArrowNotImplementedError:
            if step == 1:
                raise
            step = max(1, step // 8)


def take_rows(table: pa.Table, indices: Sequence[int]) -> pa.Table:
    """Rows by ascending index, without a copy. Arrow's own `take` copies, and does not know every type."""
    # Consecutive indices have the same difference to their position: each such run is one slice.
    runs = (list(run) for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0]))
    slices = [table.slice(run[0][1], len(run)) for run in runs]
    return pa.concat_tables(slices) if slices else table.slice(0, 0)


def values(column: pa.ChunkedArray | pa.Array) -> Iterator[Any]:
    """The values of a column, each as `value_at` gives it."""
    try:
        yield from column.to_pylist()
    except _NOT_IN_PYTHON:
        yield from (value_at(column, i) for i in range(len(column)))


def value_at(column: pa.ChunkedArray | pa.Array, index: int) -> Any:
    """One value; None, also for a field of a struct, for what Python cannot represent."""
    return _plain(column[index])


def _plain(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NOT_IN_PYTHON:
        if not isinstance(scalar, pa.StructScalar):
            return None
    names = [field.name for field in scalar.type]
    # The first of several fields of the same name.
    return {names[i]: _plain(scalar[i]) for i in reversed(range(len(names)))}


def _nulls(schema: pa.Schema, rows: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)


def plain_columns(schema: pa.Schema) -> list[str]:
    """The columns that a condition may use: all but images, other bytes, and types that SQL does not have."""
    return [field.name for field in schema if _is_plain(field.type)]


def _is_plain(kind: pa.DataType) -> bool:
    if pat.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if pat.is_list(kind) or pat.is_large_list(kind) or pat.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (
        pat.is_boolean, pat.is_integer, pat.is_float32, pat.is_float64, pat.is_string, pat.is_large_string,
        pat.is_date, pat.is_timestamp, pat.is_time, pat.is_decimal128,
    )  # fmt: skip
    return any(test(kind) for test in tests)
