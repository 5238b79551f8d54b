"""`source/` of a run that was given files: the images as they were packed, and the records of what was.

A record is put create-only after the Parquet files that it names, which have names that no other attempt uses, as with
commits: a packing that was killed leaves files that no record names, which nothing reads and `vacuum` removes. Files
that are new at the source, or have changed, are packed into further files, under the next record. Of a file whose date
alone has changed, a record without Parquet files has the new version.

Beside the Parquet files of a packing lie two lists that its record names: size and sha256 of each file, and the files
that have no row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from tasks.datasets.archives import as_text
from tasks.runs.layout import LEFT_OUT, PACKED, SOURCE, SUMS, packed_file
from tasks.runs.sealed import DamagedError, encode_sealed, read_sealed
from tasks.storage.store import Store

SCHEMA = pa.schema([("name", pa.binary()), ("version", pa.string())])  # names of files need not be text
_SUMS = pa.schema([("name", pa.binary()), ("size", pa.int64()), ("sha256", pa.binary())])
_LEFT_OUT = pa.schema([("name", pa.string()), ("why", pa.string()), ("has_row", pa.bool_())])
_FACTS = b"bfr:packed"  # key of a record's metadata

Sums = dict[str, tuple[int, bytes]]
"""Size and sha256 of each file of a source, as it was packed."""


@dataclass(frozen=True)
class Note:
    """What a record says beside the names and versions of files."""

    origin: str  # the address that they came from
    parts: Sequence[str] = ()  # Parquet files, relative to `source/`
    sums: str = ""  # lists, relative to `source/`; records of earlier versions name none
    left_out: str = ""
    left_out_files: int = 0  # without a row


@dataclass(frozen=True)
class Packed:
    """All that has been packed into a run."""

    origin: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of each file there: an image, or an archive of images
    notes: tuple[Note, ...] = ()  # of the records, in their order
    names: tuple[list[str], ...] = ()  # that each of them has

    @property
    def records(self) -> int:
        return len(self.notes)

    @property
    def parts(self) -> tuple[str, ...]:
        """The Parquet files of the dataset."""
        return tuple(part for note in self.notes for part in note.parts)

    @property
    def files(self) -> set[str]:
        """All files in `source/` that the records name."""
        lists = (path for note in self.notes for path in (note.sums, note.left_out) if path)
        return {*self.parts, *lists}

    @property
    def left_out_files(self) -> int:
        """How many files of the source have no row."""
        return sum(note.left_out_files for note in self.notes)

    @property
    def superseded(self) -> dict[str, set[str]]:
        """Of each Parquet file that has rows of earlier versions, the names, as text, of files packed anew since."""
        found, seen = dict[str, set[str]](), set[str]()
        for note, names in zip(reversed(self.notes), reversed(self.names), strict=True):
            if note.parts:
                old = {as_text(name) for name in names if name in seen}
                found |= dict.fromkeys(note.parts, old) if old else {}
                seen.update(names)
        return found


def read_packed(folder: Store) -> Packed:
    """What the records in a run's `source/` say; DamagedError for one that is damaged."""
    found = Packed()
    for path in folder.list(PACKED):
        table = read_sealed(folder, path, SCHEMA)
        note, names = Note(**json.loads(table.schema.metadata[_FACTS])), _as_names(table["name"])
        found.versions.update(zip(names, table["version"].to_pylist(), strict=True))
        found = Packed(note.origin, found.versions, (*found.notes, note), (*found.names, names))
    return found


def left_out_of(store: Store) -> dict[str, Any] | None:
    """How many files a run of files has left out, and where their names are; None for other runs."""
    try:
        packed = read_packed(store.sub(SOURCE))
    except DamagedError:  # `bfr repair` speaks of it
        return None
    return {"files": packed.left_out_files, "names": f"{SOURCE}/*/{LEFT_OUT}"} if packed.records else None


def note_packed(folder: Store, number: int, versions: Mapping[str, str], note: Note) -> bool:
    """Puts the record of this number. False if another packing was faster: then what it names does not count."""
    table = pa.table({"name": _as_bytes(versions), "version": list(versions.values())}, schema=SCHEMA)
    return folder.create(packed_file(number), encode_sealed(table, {_FACTS: json.dumps(asdict(note)).encode()}))


def write_sums(folder: Store, attempt: str, sums: Sums) -> str:
    """Writes sizes and sha256 of what an attempt has packed; the list's path."""
    sizes, digests = [size for size, _ in sums.values()], [digest for _, digest in sums.values()]
    table = pa.table({"name": _as_bytes(sums), "size": sizes, "sha256": digests}, schema=_SUMS)
    folder.write(path := f"{attempt}/{SUMS}", encode_sealed(table))
    return path


def read_sums(folder: Store, packed: Packed) -> Sums:
    """Size and sha256 of each file as it was packed last; none of what earlier versions have packed."""
    found = Sums()
    for note in packed.notes:
        with suppress(FileNotFoundError, DamagedError):  # these files are packed again if they have changed
            table = read_sealed(folder, note.sums, _SUMS) if note.sums else _SUMS.empty_table()
            sums = zip(table["size"].to_pylist(), table["sha256"].to_pylist(), strict=True)
            found.update(zip(_as_names(table["name"]), sums, strict=True))
    return found


def write_left_out(folder: Store, attempt: str, skipped: Mapping[str, str], lost: Mapping[str, str]) -> str:
    """Writes names and reasons of the files without a row, and of those whose row has no bytes; the list's path."""
    rows = [{"name": name, "why": why, "has_row": False} for name, why in skipped.items()]
    rows += [{"name": name, "why": why, "has_row": True} for name, why in lost.items()]
    folder.write(path := f"{attempt}/{LEFT_OUT}", encode_sealed(pa.Table.from_pylist(rows, schema=_LEFT_OUT)))
    return path


def read_left_out(folder: Store, packed: Packed) -> set[str]:
    """The names of all files that were left out before."""
    found = set[str]()
    for note in packed.notes:
        with suppress(FileNotFoundError, DamagedError):
            table = read_sealed(folder, note.left_out, _LEFT_OUT) if note.left_out else _LEFT_OUT.empty_table()
            found.update(row["name"] for row in table.to_pylist() if not row["has_row"])
    return found


def _as_bytes(names: Iterable[str]) -> list[bytes]:
    return [name.encode(errors="surrogateescape") for name in names]


def _as_names(column: pa.ChunkedArray) -> list[str]:
    return [name.decode(errors="surrogateescape") for name in column.to_pylist()]
