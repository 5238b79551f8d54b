"""Packs images into a Parquet dataset: one row per image file, byte for byte, broken files included.

Nothing is lost on the way in: `restore` rejects what does not decode, with the reason. A TIFF with several pages
becomes one row per page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.datasets.archives import SIDECARS, Entry, read_entries
from tasks.datasets.folder_columns import with_folder_columns
from tasks.datasets.image_column import IMAGE, find_image_column, image_bytes, with_image_features
from tasks.datasets.overwriting import made_by, require_free
from tasks.datasets.row_groups import batches
from tasks.datasets.row_ids import row_ids
from tasks.datasets.writer import DatasetWriter
from tasks.images.tiff_pages import split_pages
from tasks.runs.source import open_source
from tasks.storage.local_disk import NotAFileError
from tasks.storage.redaction import redact
from tasks.storage.store import Store

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
    rows_per_file: int = 5000,
    row_group_rows: int = 32,
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
        raise UsageError(
            f"expected images at {redact(source)}, found none ({len(report.skipped)} other files); check the path"
        )
    return report


def _rows(entries: Iterable[Entry], report: PackReport) -> Iterator[dict[str, Any]]:
    """One row per image or page. Ids are unique: a name that occurs again gets a number."""
    seen: Counter[str] = Counter()
    for entry in entries:
        if entry.skipped:
            report.skipped.append({"name": entry.name, "why": entry.skipped})
            continue
        if entry.lost:
            report.lost.append({"name": entry.name, "why": entry.lost})
        for page, data in enumerate(split_pages(entry.data), start=1):
            name = entry.name if page == 1 else f"{entry.name}#page={page}"
            seen[name] += 1
            row_id = name if seen[name] == 1 else f"{name}#{seen[name]}"
            yield {"id": row_id, "image": {"bytes": data, "path": entry.name}, **entry.sidecars}


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
        try:
            with store.open_input(file.path) as opened:
                yield from _read_parquet(opened, file.name, column)
        except (FileNotFoundError, NotAFileError) as error:
            raise UsageError(
                f"expected a file at {redact(store.url(file.path))}, found {error.strerror or error}; remove it"
            ) from error
        except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
            raise UsageError(
                f"expected Parquet files of one kind at {redact(source)}, found {file.name}, which differs "
                f"or is damaged: {error}"
            ) from error


def _read_parquet(opened: BinaryIO, path: str, column: str) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(opened)
    find_image_column(parquet.schema_arrow, column)
    first_row = 0
    for batch in batches(parquet, BATCH_ROWS):
        table = with_folder_columns(pa.Table.from_batches([batch]), path)
        yield _normalised(table, column, path, first_row)
        first_row += batch.num_rows


def _normalised(table: pa.Table, column: str, file: str, first_row: int) -> pa.Table:
    """`id` and `image` first; another column that is named `image` becomes `source_image`."""
    cells = table[column].to_pylist()
    images = [{"bytes": image_bytes(cell, lambda _: None), "path": _path(cell)} for cell in cells]
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
