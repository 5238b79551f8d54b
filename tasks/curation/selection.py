"""Which rows of a run are kept: steps that drop rows, one after the other, with what each dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.rng import derive_seed
from tasks.runs.finished_run import Rows

NOT_DROPPED = -1


@dataclass
class Selection:
    """`reasons` (n,): the number of the step that dropped each row, or NOT_DROPPED."""

    reasons: NDArray[np.int16]
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rows: int) -> Selection:
        """A selection of all `rows` rows."""
        return cls(np.full(rows, NOT_DROPPED, np.int16))

    @property
    def kept(self) -> Rows:
        return np.flatnonzero(self.reasons == NOT_DROPPED)

    def drop(self, name: str, rows: Rows) -> None:
        """A step that drops rows; those that an earlier step dropped keep its reason."""
        rows = rows[self.reasons[rows] == NOT_DROPPED]
        self.reasons[rows] = len(self.names)
        self.names.append(name)

    def keep(self, name: str, mask: NDArray[np.bool_]) -> None:
        """A step that drops all rows outside the mask."""
        self.drop(name, np.flatnonzero(~mask))

    def funnel(self) -> list[dict[str, Any]]:
        """How many rows each step dropped, and how many were left."""
        left, steps = len(self.reasons), [{"step": "rows of the run", "dropped": 0, "left": len(self.reasons)}]
        for number, name in enumerate(self.names):
            dropped = int((self.reasons == number).sum())
            left -= dropped
            steps.append({"step": name, "dropped": dropped, "left": left})
        return steps


def require_sortable(table: pa.Table, column: str) -> None:
    """UsageError unless rows can be sorted by this column."""
    if column not in (names := _sortable(table)):
        raise UsageError(f"expected a column of numbers or times to sort by, found {column!r}; known: "
                         f"{', '.join(names)}")  # fmt: skip


def require_values(table: pa.Table, column: str) -> None:
    """UsageError if no row has a value in this column, because then no row is better than another."""
    if not _has_values(table[column]):
        known = ", ".join(name for name in _sortable(table) if _has_values(table[name]))
        raise UsageError(
            f"expected values in the column {column!r} to rank rows by, found none in {table.num_rows} rows; "
            f"use --by with one that has: {known}"
        )


def require_strata(table: pa.Table, column: str) -> None:
    """UsageError unless the column divides rows into groups."""
    names = [field.name for field in table.schema if _is_stratum(field.type)]
    if column not in names:
        raise UsageError(f"expected a column of strings, integers or Booleans to stratify by, found {column!r}; "
                         f"known: {', '.join(names)}")  # fmt: skip


def ranks(table: pa.Table, by: str, ascending: bool) -> Rows:
    """(n,) the rank of each row by a column, 0 for the best; ties go by id, then by position.

    Rows without a value, or with NaN, come last.
    """
    keys = pa.table({"by": _numbers(table[by]), "id": table["id"], "place": np.arange(table.num_rows)})
    direction = "ascending" if ascending else "descending"
    order = pc.sort_indices(keys, sort_keys=[("by", direction), ("id", "ascending"), ("place", "ascending")])
    found = np.empty(table.num_rows, np.int64)
    found[order.to_numpy()] = np.arange(table.num_rows)
    return found


def best(rows: Rows, rank: Rows, count: int) -> Rows:
    """The `count` rows of lowest rank, best first."""
    return rows[np.argsort(rank[rows], kind="stable")[:count]]


def sample_strata(table: pa.Table, rows: Rows, column: str, per_stratum: int | None, seed: int) -> Rows:
    """`per_stratum` rows for each value of a column, or as many as the smallest stratum has.

    The draw depends on (seed, id) alone, so the order of files does not matter. All of the rows must have a value.
    """
    if not len(rows):
        return rows
    some = table.take(pa.array(rows))
    codes = pc.dictionary_encode(some[column].combine_chunks()).indices.to_numpy()
    drawn = np.array([derive_seed(seed, row_id) for row_id in some["id"].to_pylist()], np.int64)
    order = np.lexsort((rows, drawn, codes))
    _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    within = np.arange(len(rows)) - np.repeat(first, counts)
    return np.sort(rows[order[within < (per_stratum or counts.min())]])


def _sortable(table: pa.Table) -> list[str]:
    return [field.name for field in table.schema if _is_sortable(field.type)]


def _has_values(column: pa.ChunkedArray) -> bool:
    return bool(_numbers(column).null_count < len(column))


def _numbers(column: pa.ChunkedArray) -> pa.Array:
    """The values, with null for NaN."""
    values = column.combine_chunks()
    return (
        pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values) if pat.is_floating(values.type) else values
    )


def _is_sortable(kind: pa.DataType) -> bool:
    return pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind) or pat.is_temporal(kind)


def _is_stratum(kind: pa.DataType) -> bool:
    tests = (pat.is_string, pat.is_large_string, pat.is_integer, pat.is_boolean, pat.is_dictionary)
    return any(test(kind) for test in tests)
