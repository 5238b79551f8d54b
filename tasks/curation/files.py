"""Writes a curated dataset: as Parquet like any other dataset, as WebDataset tar shards, or as a folder of images."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from tasks.curation.selection import NOT_DROPPED, Selection
from tasks.datasets.image_column import IMAGE, embedded_bytes, with_image_features
from tasks.datasets.plain_json import encode_json
from tasks.datasets.row_groups import value_at
from tasks.datasets.writer import DatasetWriter, rename_clashing
from tasks.runs.finished_run import FinishedRun, Rows
from tasks.runs.layout import DATA
from tasks.storage.store import Store

if TYPE_CHECKING:
    from tasks.curation.duplicates import Duplicates

LINEAGE = pa.schema(
    [
        ("source_run", pa.string()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("origin_file", pa.string()),
        ("origin_row", pa.int64()),
    ]
)
"""Where a row is from: the run, its data file and row; the file of the run's own source, and the row there."""

ROWS_PER_FILE, ROW_GROUP_ROWS = 5000, 64
ROWS_PER_PART = 1000  # in a tar shard or a folder
MAX_PART_BYTES = 256 * 2**20
_RESTORED = "restored"
_EXTENSIONS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpg"), (b"RIFF", "webp"), (b"II*\0", "tif"), (b"MM\0*", "tif"))


class Files(Protocol):
    """A writer of rows, which keeps their order."""

    def write(self, table: pa.Table) -> None: ...


def open_files(form: str, store: Store, schema: pa.Schema) -> AbstractContextManager[Files]:
    """The writer of `parquet`, `webdataset` or `folder`, below `data/`."""
    inner = store.sub(DATA)
    if form == "parquet":
        return DatasetWriter(inner, ROWS_PER_FILE, ROW_GROUP_ROWS, schema)
    return _Parts(inner, _tar if form == "webdataset" else _folder)


def curated_schema(run: FinishedRun) -> pa.Schema:
    """The run's columns, then `LINEAGE`. A column of the run with a name of these is renamed."""
    names = rename_clashing(run.schema.names, LINEAGE.names)
    fields = [field.with_name(name) for field, name in zip(run.schema, names, strict=True)]
    schema = pa.schema([*fields, *LINEAGE], metadata=run.schema.metadata)
    return with_image_features(schema, [field.name for field in schema if field.type == IMAGE])


def curated_tables(run: FinishedRun, rows: Rows, source: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows with their images, one row group of the run at a time."""
    for here, table in run.read(rows):
        columns = [
            _as_type(table[name], field.type) if name in table.column_names else pa.nulls(len(here), field.type)
            for name, field in zip(run.schema.names, schema, strict=False)
        ]
        lineage = [[source] * len(here), *run.places(here), *run.origins(here)]
        columns += [pa.array(column, kind) for column, kind in zip(lineage, LINEAGE.types, strict=True)]
        yield pa.table(columns, schema=schema)


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    return column.take(pa.array(range(len(column)))).cast(kind)  # Arrow's cast of a slice of structs is broken


def safe_name(number: int, row_id: str) -> str:
    """A file name for a row: unique by its number, and only letters, digits, `_` and `-` whatever the id is."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", row_id)[:60].strip("_")
    return f"{number:08d}-{readable}" if readable else f"{number:08d}"


Images = dict[str, tuple[str, bytes]]
"""Column -> file name and encoded image, for one row."""

Sample = tuple[str, Images, dict[str, Any]]
"""A row: its safe name, its images, and its other values for JSON."""


class _Parts:
    """Collects rows into parts of bounded size; a part is written as soon as it is full."""

    def __init__(self, store: Store, encode: Callable[[int, list[Sample]], Iterator[tuple[str, bytes]]]) -> None:
        self._store, self._encode = store, encode
        self._part: list[Sample] = []
        self._size = self._number = self._rows = 0

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._publish()

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        image_columns = [field.name for field in table.schema if _is_encoded(field.type)]
        others = [field.name for field in table.schema if not _holds_bytes(field.type)]
        suffixes = _suffixes(image_columns)
        for i in range(table.num_rows):
            values = {name: value_at(table[name], i) for name in others}
            key = safe_name(self._rows, values["id"] or "")
            cells = {name: embedded_bytes(value_at(table[name], i)) for name in image_columns}
            images = {name: (_file_name(key, suffixes[name], data), data) for name, data in cells.items() if data}
            self._part.append((key, images, values))
            self._rows += 1
            self._size += sum(len(data) for _, data in images.values())
            if len(self._part) == ROWS_PER_PART or self._size >= MAX_PART_BYTES:
                self._publish()

    def _publish(self) -> None:
        if self._part:
            for path, data in self._encode(self._number, self._part):
                self._store.write(path, data)
        self._part, self._size, self._number = [], 0, self._number + 1


def _tar(number: int, samples: list[Sample]) -> Iterator[tuple[str, bytes]]:
    """`<key>.png`, `<key>.json`, and `<key>.<column>.png` for other images: WebDataset groups them by key."""
    with tarfile.open(fileobj=(sink := io.BytesIO()), mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, images, values in samples:
            for name, data in [*images.values(), (f"{key}.json", encode_json(values))]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    yield f"part-{number:05d}.tar", sink.getvalue()


def _folder(number: int, samples: list[Sample]) -> Iterator[tuple[str, bytes]]:
    """Images and `metadata.jsonl`, as Hugging Face's `imagefolder` reads them: of each image a column with its file's
    name. A column of the rows that has this name is renamed."""
    lines = []
    own = {
        column: "file_name" if column == _RESTORED else f"{column}_file_name"
        for _, some, _ in samples
        for column in some
    }
    for _, images, values in samples:
        for name, data in images.values():
            yield f"{number:05d}/{name}", data
        names = {own[column]: name for column, (name, _) in images.items()}
        columns = rename_clashing(list(values), own.values())
        lines.append(encode_json(names | dict(zip(columns, values.values(), strict=True))))
    yield f"{number:05d}/metadata.jsonl", b"\n".join(lines) + b"\n"


def _suffixes(columns: Sequence[str]) -> dict[str, str]:
    """The part of a file name that tells the column: safe, short and unique; empty for the restored image."""
    found = {_RESTORED: ""}
    for column in columns:
        if column != _RESTORED:
            safe = re.sub(r"[^a-z0-9_]+", "_", column.lower())[:20]
            numbered = (f"{safe}_{number}" for number in count(2))
            found[column] = next(name for name in chain([safe], numbered) if name not in found.values())
    return found


def _file_name(key: str, suffix: str, data: bytes) -> str:
    """A file name with the extension that the first bytes call for."""
    extension = next((name for start, name in _EXTENSIONS if data.startswith(start)), "bin")
    return f"{key}.{suffix}.{extension}" if suffix else f"{key}.{extension}"


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether a cell is one file: bytes, or a struct with `bytes`."""
    if pa.types.is_struct(kind):
        return "bytes" in kind.names and _holds_bytes(kind.field("bytes").type)
    return not pa.types.is_nested(kind) and _holds_bytes(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether there are bytes anywhere in the type: such columns cannot be written as JSON."""
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("kept_id", pa.string()),
        ("similarity", pa.float32()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("origin_file", pa.string()),
        ("origin_row", pa.int64()),
        ("kept_file", pa.string()),
        ("kept_row", pa.int64()),
    ]
)


def dropped_table(run: FinishedRun, selection: Selection, duplicates: Duplicates | None) -> pa.Table:
    """The rows that were left out, each with the reason and, for a duplicate, the row kept in its place."""
    rows = np.flatnonzero(selection.reasons != NOT_DROPPED)
    heads, similarity = np.full(run.table.num_rows, -1), np.full(run.table.num_rows, np.nan, np.float32)
    if duplicates is not None:
        heads[duplicates.dropped], similarity[duplicates.dropped] = duplicates.kept, duplicates.similarity
    heads = heads[rows]
    is_alone = heads < 0
    kept_files, kept_rows = run.places(heads)
    files, places = run.places(rows)
    origins, origin_rows = run.origins(rows)
    columns = {
        "id": pa.array([run.ids[row] for row in rows], pa.string()),
        "reason": pa.array([selection.names[number] for number in selection.reasons[rows]], pa.string()),
        "kept_id": pa.array([run.ids[row] for row in heads], pa.string(), mask=is_alone),
        "similarity": pa.array(similarity[rows], mask=is_alone),
        "source_file": pa.array(files, pa.string()),
        "source_row": pa.array(places, pa.int64()),
        "origin_file": pa.array(origins, pa.string()),
        "origin_row": pa.array(origin_rows, pa.int64()),
        "kept_file": pa.array(kept_files, pa.string(), mask=is_alone),
        "kept_row": pa.array(kept_rows, pa.int64(), mask=is_alone),
    }
    return pa.Table.from_pydict(columns, DROPPED)
