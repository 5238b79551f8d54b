"""`source/` of a run that was given files: the images as they were packed, and the records of what was.

A record is put create-only after the Parquet files that it names, which have names that no other attempt uses, as with
commits: a packing that was killed leaves files that no record names, which nothing reads and `vacuum` removes. Files
that are new at the source, or have changed, are packed into further files, under the next record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tasks.runs.layout import PACKED, packed_file
from tasks.runs.sealed import encode_sealed, read_sealed
from tasks.storage.store import Store

SCHEMA = pa.schema([("name", pa.binary()), ("version", pa.string())])  # names of files need not be text
_FACTS = b"bfr:packed"  # key of a record's metadata


@dataclass(frozen=True)
class Packed:
    """All that has been packed into a run."""

    origin: str = ""  # the address that it came from
    versions: dict[str, str] = field(default_factory=dict)  # of each file there: an image, or an archive of images
    parts: tuple[str, ...] = ()  # Parquet files, relative to `source/`
    records: int = 0


def read_packed(folder: Store) -> Packed:
    """What the records in a run's `source/` say; DamagedError for one that is damaged."""
    found = Packed()
    for path in folder.list(PACKED):
        table = read_sealed(folder, path, SCHEMA)
        facts = json.loads(table.schema.metadata[_FACTS])
        names = (name.decode(errors="surrogateescape") for name in table["name"].to_pylist())
        versions = dict(zip(names, table["version"].to_pylist(), strict=True))
        found = Packed(facts["origin"], found.versions | versions, (*found.parts, *facts["parts"]), found.records + 1)
    return found


def note_packed(folder: Store, before: Packed, origin: str, versions: Mapping[str, str], parts: Sequence[str]) -> bool:
    """Puts the next record. False if another packing was faster: then these parts do not count."""
    names = [name.encode(errors="surrogateescape") for name in versions]
    table = pa.table({"name": names, "version": list(versions.values())}, schema=SCHEMA)
    facts = {_FACTS: json.dumps({"origin": origin, "parts": list(parts)}).encode()}
    return folder.create(packed_file(before.records), encode_sealed(table, facts))
