"""What rows are called: ids, keys that are unique, and their digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

import pyarrow as pa

from tasks.datasets.row_groups import values


def row_ids(name: str, first_row: int, table: pa.Table) -> list[str]:
    """The ids of some rows of a file: the column `id` where there is one, else `<file>#<row>`."""
    given = values(table["id"]) if "id" in table.column_names else repeat(None, table.num_rows)
    return [f"{name}#{first_row + i}" if row_id is None else str(row_id) for i, row_id in enumerate(given)]


def digest_of_ids(ids: Iterable[str]) -> str:
    """What a commit record keeps of its rows' ids, in order, to be able to say later that each is there once."""
    digest = hashlib.sha256()
    for row_id in ids:
        encoded = row_id.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


Key = tuple[str, int]
"""A row's id, and which of the rows with this id it is."""


def row_keys(ids: Iterable[str]) -> Iterator[Key]:
    """Each row's id, and which of the rows with this id it is."""
    seen = Counter[str]()
    for row_id in ids:
        yield row_id, seen[row_id]
        seen[row_id] += 1
