"""Packs images into a Parquet dataset: one row per image file, byte for byte, broken files included.

Nothing is lost on the way in: `restore` rejects what does not decode, with the reason. A TIFF or PDF with several pages
becomes one row per page; that of the first one has the whole file, of which every reader takes the first page.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bfr_models.errors import BfrError, UsageError
from tasks.datasets.archives import ARCHIVES, SIDECARS, Entry, image_files, read_entries
from tasks.datasets.folder_columns import with_folder_columns
from tasks.datasets.image_column import IMAGE, find_image_column, image_bytes, with_image_features, with_image_fields
from tasks.datasets.overwriting import made_by, require_free
from tasks.datasets.row_groups import batches, opened_parquet, values
from tasks.datasets.row_ids import row_ids
from tasks.datasets.writer import DatasetWriter
from tasks.images.document_readers import later_pages
from tasks.images.tiff_pages import split_pages
from tasks.runs.layout import SOURCE, SPEC
from tasks.runs.packed import Packed, note_packed, read_packed
from tasks.runs.source import open_source
from tasks.storage.redaction import redact
from tasks.storage.store import Store

ROWS_PER_FILE, ROW_GROUP_ROWS = 5000, 32
BATCH_ROWS, BATCH_BYTES = 64, 64 * 2**20  # of a table in memory, whichever is reached first


@dataclass
class PackReport:
    """What was packed, with name and reason for each file that has no row or no bytes."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    """Files that are not images; they produce no row."""
    lost: list[dict[str, str]] = field(default_factory=list)
    """Images that could not be read from their archive; their rows have no bytes."""


def pack_pictures(
    source: str,
    destination: str,
    rows_per_file: int = ROWS_PER_FILE,
    row_group_rows: int = ROW_GROUP_ROWS,
    column: str = "image",
    *,
    follow_links: bool = False,
    overwrite: bool = False,
) -> PackReport:
    """Packs a folder, .zip, .tar (or WebDataset) or Parquet at `source` into `part-*.parquet` at `destination`.

    UsageError if there is nothing to pack, or if the destination has other files, or another dataset that is not to be
    overwritten.
    """
    store, report = Store(destination), PackReport()
    mark = made_by("pack", source, {"column": column})
    require_free(store, mark, overwrite=overwrite)
    with DatasetWriter(store, rows_per_file, row_group_rows, mark=mark) as writer:
        entries = read_entries(source, follow_links=follow_links)
        tables = _from_parquet(source, column) if entries is None else _tables(_rows(entries, report))
        for table in tables:
            writer.write(table)
    report.rows, report.files, report.bytes = writer.rows, len(writer.files), writer.bytes
    if not report.rows:
        others = "".join(f"; {other['name']}: {other['why']}" for other in report.skipped[:3])
        raise UsageError(
            f"expected images at {redact(source)}, found none ({len(report.skipped)} other files{others}); check the "
            "path"
        )
    return report


@dataclass(frozen=True)
class FilesOfRun:
    """Images that a run was given as files: it packs them into itself, once, and goes on with that dataset."""

    source: str  # as it was given
    url: str  # of the dataset
    todo: dict[str, str]  # files that are new or have changed, with their versions
    changed: int  # how many of them were packed before, in another version: those rows stay
    packed: Packed

    def pack(self) -> PackReport:
        """Packs what is to do into further files of the dataset."""
        folder, report, attempt = Store(self.url), PackReport(), uuid.uuid4().hex[:12]
        if not self.todo:
            return report
        with DatasetWriter(folder.sub(attempt), ROWS_PER_FILE, ROW_GROUP_ROWS) as writer:
            entries = read_entries(self.source, only=self.todo.keys())
            for table in _tables(_rows(entries or (), report)):
                writer.write(table)
        report.rows, report.files, report.bytes = writer.rows, len(writer.files), writer.bytes
        parts = [f"{attempt}/{name}" for name in writer.files]
        if not note_packed(folder, self.packed, redact(self.source), self.todo, parts):
            for path in parts:
                folder.delete(path)
            raise BfrError(
                f"expected to be the only one that packs {redact(self.source)} into {redact(self.url)}, found another "
                "that was faster; run the same command again"
            )
        return report


def files_of_run(source: str, destination: str) -> FilesOfRun | None:
    """The images at a run's source, if these are files; None for a dataset. UsageError, before anything is written, if
    the run at the destination is of other files."""
    Store(destination).require_writable()
    url = f"{destination.rstrip('/')}/{SOURCE}"
    packed = read_packed(Store(url))
    if not packed.records and Store(destination).exists(SPEC):
        return None  # a run of a dataset: nothing is listed to know that
    found = image_files(source)
    if packed.records and packed.origin != redact(source):
        if redact(source).rstrip("/") == redact(url):
            return None  # by the dataset's own address, as `run.json` has it
        raise UsageError(
            f"expected {packed.origin}, whose images are packed in {redact(url)}, found {redact(source)}; use another "
            "destination"
        )
    if not packed.records and not found:
        return None
    if f"{destination}/".startswith(f"{source.rstrip('/')}/"):
        raise UsageError(f"expected a destination outside {redact(source)}, found {redact(destination)}; use another")
    todo = {name: version for name, version in (found or {}).items() if packed.versions.get(name) != version}
    again = [name for name in todo if name in packed.versions]
    if archive := next((name for name in again if name.lower().endswith(ARCHIVES)), None):
        raise UsageError(
            f"expected {archive} as it was when it was packed into {redact(url)}, found it changed: all its images "
            "would come twice; use another destination"
        )
    return FilesOfRun(source, url, todo, len(again), packed)


def _rows(entries: Iterable[Entry], report: PackReport) -> Iterator[dict[str, Any]]:
    """One row per image or page. Ids are unique: a name that occurs again gets a number."""
    seen: Counter[str] = Counter()
    for entry in entries:
        if entry.skipped:
            report.skipped.append({"name": entry.name, "why": entry.skipped})
            continue
        if entry.lost:
            report.lost.append({"name": entry.name, "why": entry.lost})
        for page, data in enumerate(_pages(entry.data), start=1):
            path = entry.name
            name = path if page == 1 else f"{path}#page={page}"
            seen[name] += 1
            row_id = name if seen[name] == 1 else f"{name}#{seen[name]}"
            yield {"id": row_id, "image": {"bytes": data, "path": path}, **entry.sidecars}


def _pages(data: bytes | None) -> Iterator[bytes | None]:
    """Each page of a TIFF or a PDF, the first as the file itself: with it the dataset has every byte of what was
    packed."""
    yield data
    if data is not None and data[:5] == b"%PDF-":
        yield from later_pages(data)
    else:
        yield from split_pages(data)[1:]


def _tables(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    """Tables of bounded size. The first row decides whether there are sidecar columns."""
    batch: list[dict[str, Any]] = []
    size = 0
    schema: pa.Schema | None = None
    for row in rows:
        schema = schema or _schema(row)
        if not set(row) <= set(schema.names):
            raise UsageError(
                f"expected archives with the same columns, found {', '.join(row)} after {', '.join(schema.names)}; "
                "pack the archives that have text files beside their images separately"
            )
        batch.append(row)
        size += len(row["image"]["bytes"] or b"")
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            table, batch, size = pa.Table.from_pylist(batch, schema=schema), [], 0  # not held while it is written
            yield table
    if batch:
        yield pa.Table.from_pylist(batch, schema=schema)


def _schema(row: Mapping[str, Any]) -> pa.Schema:
    columns = [("id", pa.string()), ("image", IMAGE)]
    columns += [(name, pa.string()) for name in SIDECARS if name in row]
    return with_image_features(pa.schema(columns), ["image"])


def _from_parquet(source: str, column: str) -> Iterator[pa.Table]:
    """The rows of Parquet files with the image column named `image` and all other columns as they are."""
    for store, file in open_source(source):
        with opened_parquet(store, file) as parquet:
            find_image_column(parquet.schema_arrow, column)
            first_row = 0
            for batch in batches(parquet, BATCH_ROWS):
                table = with_folder_columns(pa.Table.from_batches([batch]), file.name)
                table = with_image_fields(table, column)
                yield _normalised(table, column, file.name, first_row)
                first_row += batch.num_rows


def _normalised(table: pa.Table, column: str, file: str, first_row: int) -> pa.Table:
    """`id` and `image` first; another column that is named `image` becomes `source_image`."""
    images = [{"bytes": image_bytes(cell, lambda _: None), "path": _path(cell)} for cell in values(table[column])]
    columns = {"id": pa.array(row_ids(file, first_row, table), pa.string()), "image": pa.array(images, IMAGE)}
    for name in table.column_names:
        if name not in ("id", column):
            columns["source_image" if name == "image" else name] = table[name]
    out = pa.table(columns, metadata=table.schema.metadata)
    return out.replace_schema_metadata(with_image_features(out.schema, ["image"]).metadata)


def _path(cell: object) -> str | None:
    if isinstance(cell, dict):
        return cell.get("path")
    return cell if isinstance(cell, str) else None
