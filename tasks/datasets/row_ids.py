"""Names of rows: ids, unique keys, and the digest of many ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

import pyarrow as pa

from tasks.datasets.row_groups import values


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
