"""Row groups of a Parquet file, of which some may be damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

DAMAGE = (pa.ArrowException, OSError)
"""What pyarrow raises for bytes that are no Parquet, and more: see `is_damage`."""


def is_damage(error: BaseException) -> bool:
    """Whether it is the file's content that is wrong. Else it is storage trouble, which may pass: pyarrow's own
    `OSError`s are of just that type and have no number, those of disks and networks have one."""
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)


def read_row_groups(
    parquet: pq.ParquetFile, groups: range, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[int, str]]:
    """Some row groups, all their columns by default, and why rows (counted from the first) could not be read: they
    are null."""
    names = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
    try:
        return parquet.read_row_groups(groups, columns=names), {}
    except DAMAGE as error:
        if not is_damage(error):
            raise
    tables: list[pa.Table] = []
    unread: dict[int, str] = {}
    first = 0
    for group in groups:
        rows = parquet.metadata.row_group(group).num_rows
        try:
            tables.append(parquet.read_row_group(group, columns=names))
        except DAMAGE as error:
            if not is_damage(error):
                raise
            unread |= dict.fromkeys(range(first, first + rows), f"row group {group} does not read: {error}"[:500])
            tables.append(_nulls(pa.schema([parquet.schema_arrow.field(name) for name in names]), rows))
        first += rows
    return pa.concat_tables(tables), unread


def take_rows(table: pa.Table, indices: Sequence[int]) -> pa.Table:
    """Rows by ascending index. Unlike Arrow's own `take` for every type there is, and without a copy."""
    runs = (list(run) for _, run in groupby(enumerate(indices), lambda place: place[1] - place[0]))
    slices = [table.slice(run[0][1], len(run)) for run in runs]
    return pa.concat_tables(slices) if slices else table.slice(0, 0)


def values(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column; None for what Python cannot hold: text that is not UTF-8, times to the nanosecond."""
    try:
        yield from column.to_pylist()
    except ValueError:
        yield from (value_at(column, i) for i in range(len(column)))


def value_at(column: pa.ChunkedArray, index: int) -> Any:
    """One value; None for what Python cannot hold."""
    try:
        return column[index].as_py()
    except ValueError:
        return None


def _nulls(schema: pa.Schema, rows: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)


def plain_columns(schema: pa.Schema) -> list[str]:
    """The columns that a condition may use: all but pictures, other bytes, and what SQL has no type for."""
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
