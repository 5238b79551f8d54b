"""Records of a run that carry a checksum of themselves, so that damage is told from content.

A record that does not parse, or no longer has the checksum it was written with, raises `DamagedError`, which names the
file. Records of older versions carry no checksum: of these only what does not parse is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError
from tasks.datasets.row_groups import DAMAGE, is_damage
from tasks.datasets.writer import encode_table
from tasks.runs.layout import POINTER
from tasks.storage.redaction import redact
from tasks.storage.store import Store

CHECKSUM = "checksum"
MADE_BY = b"bfr:made_by"  # what a plan says of the command that made it: never without a checksum
_TABLE_CHECKSUM = b"bfr:checksum"
_ROW_GROUP_ROWS = 65536


class DamagedError(BfrError):
    """A record of a run that is not what was written. `path` is the file, relative to the run."""

    def __init__(self, where: str, path: str, found: str) -> None:
        super().__init__(where, path, found)  # all of them, so that it survives pickling
        self.where, self.path, self.found = where, path, found

    def __str__(self) -> str:
        return f"{self.where}/{self.path}: expected the record as it was written, found {self.found}; {self._advice}"

    @property
    def _advice(self) -> str:
        if self.path == POINTER or self.path.startswith("comparisons/"):
            return "the generations are not touched by it: put a good copy back, or remove it and run `bfr reprocess`"
        return f"`bfr repair {self.where}` says what is damaged and mends it"


def damaged(store: Store, path: str, found: str) -> DamagedError:
    """What to raise for a record that is damaged."""
    return DamagedError(redact(store.url()), path, found)


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its checksum."""
    return {**record, CHECKSUM: _checksum(record)}


def read_json(store: Store, path: str) -> dict[str, Any]:
    """A JSON record; its checksum is checked if it has one. FileNotFoundError, or DamagedError."""
    data = store.read(path)
    try:
        record: Any = json.loads(data)
    except ValueError as error:
        found = "an empty file" if not data else f"{len(data)} bytes that are not JSON ({error})"
        raise damaged(store, path, found) from None
    if not isinstance(record, dict):
        raise damaged(store, path, f"JSON of another kind ({type(record).__name__})")
    if CHECKSUM in record and record[CHECKSUM] != _checksum(record):
        raise damaged(store, path, "content that does not match its checksum")
    return record


@contextmanager
def run_parquet(store: Store, path: str, buffer_size: int = 0, *, whole: bool = False) -> Iterator[pq.ParquetFile]:
    """A file with rows of a run, read as a whole, or in pieces of `buffer_size` bytes if that is not 0. DamagedError if
    it is gone or does not read."""
    try:
        with io.BytesIO(store.read(path)) if whole else store.open_input(path) as opened:
            yield pq.ParquetFile(opened, buffer_size=buffer_size)
    except FileNotFoundError:
        raise damaged(store, path, "no file") from None
    except DAMAGE as error:
        if not is_damage(error):
            raise
        raise damaged(store, path, f"one that does not read ({error})") from error


def encode_sealed(table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """A table as a Parquet file that holds a checksum of its rows and metadata."""
    sealed = {**(metadata or {}), _TABLE_CHECKSUM: _table_checksum(table, metadata or {})}
    return encode_table(table.replace_schema_metadata(sealed), _ROW_GROUP_ROWS)


def read_sealed(store: Store, path: str, schema: pa.Schema) -> pa.Table:
    """A table of this schema; its checksum is checked if it has one. FileNotFoundError, or DamagedError."""
    data = store.read(path)
    try:
        table = pq.read_table(pa.BufferReader(data))
        if not set(schema).issubset(table.schema):
            raise damaged(store, path, f"a table with other columns ({', '.join(table.column_names)[:120]})")
        metadata = dict(table.schema.metadata or {})
        checksum = metadata.pop(_TABLE_CHECKSUM, None)
        if (checksum is not None or MADE_BY in metadata) and checksum != _table_checksum(table, metadata):
            raise damaged(store, path, "content that does not match its checksum")
    except (*DAMAGE, ValueError) as error:  # ValueError: bytes that are not UTF-8
        if isinstance(error, OSError) and not is_damage(error):
            raise
        found = "an empty file" if not data else f"a Parquet file that does not read ({str(error)[:120]})"
        raise damaged(store, path, found) from None
    return table


def _checksum(record: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != CHECKSUM}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _table_checksum(table: pa.Table, metadata: Mapping[bytes, bytes]) -> bytes:
    """Column by column, as text: the same whatever version of Arrow wrote it."""
    digest = hashlib.sha256(b"\0".join(part for key in sorted(metadata) for part in (key, metadata[key])))
    for name in table.column_names:
        digest.update("\0".join([name, *map(str, table[name].to_pylist())]).encode())
    return digest.hexdigest()[:16].encode()
