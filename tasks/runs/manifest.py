"""`manifest.parquet`: the files that make up a finished run, shard by shard, in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from tasks.runs.commits import Record
from tasks.runs.layout import DATA, FEATURES, MANIFEST, REJECTED
from tasks.runs.sealed import encode_sealed, read_sealed
from tasks.storage.store import Store

SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("generation", pa.int32()),
        ("attempt", pa.string()),
        ("source", pa.string()),
        ("data", pa.string()),
        ("features", pa.string()),
        ("rejected", pa.string()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("restored_rows", pa.int64()),
        ("rejected_rows", pa.int64()),
    ]
)

Entry = dict[str, Any]
"""One row of the manifest."""


def manifest_entry(record: Record) -> Entry:
    """A committed shard's row of the manifest; None for a file that the shard does not have."""
    files = record["files"]
    return {
        "shard": record["shard"],
        "generation": record["generation"],
        "attempt": record["attempt"],
        "source": record["source"],
        **{folder: files.get(folder, {}).get("path") for folder in (DATA, FEATURES, REJECTED)},
        "sha256": files.get(DATA, {}).get("sha256"),
        "rows": record["rows"],
        "restored_rows": record["restored"],
        "rejected_rows": record["rejected"],
    }


def write_manifest(store: Store, entries: Sequence[Entry]) -> None:
    """Replaces the manifest."""
    table = pa.Table.from_pylist(list(entries), schema=SCHEMA)
    store.write(MANIFEST, encode_sealed(table))


def read_manifest(store: Store) -> list[Entry]:
    """The entries of a finished run. FileNotFoundError if there is no manifest, DamagedError for a damaged one."""
    entries: list[Entry] = read_sealed(store, MANIFEST, SCHEMA).to_pylist()
    return entries


def data_by_shard(entries: Iterable[Entry]) -> dict[str, str | None]:
    """The data file of each shard, by its id; None where it has no restored rows."""
    return {entry["shard"]: entry[DATA] for entry in entries}


def data_files(store: Store) -> list[str]:
    """The data files of a finished run, in the order of the plan. A shard without restored rows has none."""
    files = read_sealed(store, MANIFEST, pa.schema([SCHEMA.field(DATA)]))[DATA]
    return [path for path in files.to_pylist() if path]
