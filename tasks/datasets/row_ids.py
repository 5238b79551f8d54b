"""Names of rows: ids, unique keys, and the digest of many ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

import pyarrow as pa
import pyarrow.types as pat

from bfr_models.errors import UsageError
from tasks.datasets.row_groups import values


def require_ids(schema: pa.Schema) -> None:
    """UsageError if the column `id` holds neither strings nor integers: as text, 7.0 would be another id than 7."""
    if "id" not in schema.names:
        return
    given = schema.field("id").type
    kind = given.value_type if pat.is_dictionary(given) else given
    tests = (pat.is_string, pat.is_large_string, pat.is_string_view, pat.is_integer, pat.is_null)
    if not any(test(kind) for test in tests):
        raise UsageError(
            f"expected strings or integers in column 'id', found {given}; convert them, or rename the column: rows are "
            "then named <file>#<row>"
        )


def row_ids(name: str, first_row: int, table: pa.Table) -> list[str]:
    """The ids of some rows of a file: their `id` column, or `<file>#<row>` where there is none."""
    given = values(table["id"]) if "id" in table.column_names else repeat(None, table.num_rows)
    return [f"{name}#{first_row + i}" if row_id is None else str(row_id) for i, row_id in enumerate(given)]


def digest_of_ids(ids: Iterable[str]) -> str:
    """The sha256 of ids in their order: a commit record keeps it as proof that each row is there exactly once."""
    digest = hashlib.sha256()
    for row_id in ids:
        encoded = row_id.encode("utf-8", "surrogatepass")  # a hostile id may hold lone surrogates
        digest.update(len(encoded).to_bytes(8, "big") + encoded)  # with its length, else ["ab"] would equal ["a", "b"]
    return digest.hexdigest()


Key = tuple[str, int]
"""A row's id, and its number among the rows with this id: ids need not be unique."""


def row_keys(ids: Iterable[str]) -> Iterator[Key]:
    """The unique keys of rows with these ids."""
    seen = Counter[str]()
    for row_id in ids:
        yield row_id, seen[row_id]
        seen[row_id] += 1
