"""Rows of images that were files: one for each image or page, its bytes untouched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bfr_models.errors import UsageError
from tasks.datasets.archives import SIDECARS, Entry
from tasks.datasets.image_column import IMAGE, with_image_features
from tasks.images.document_readers import later_pages
from tasks.images.tiff_pages import split_pages

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
    left_out: int = 0
    """Of a run: the files without a row that all its lists name."""


def rows_of(entries: Iterable[Entry], report: PackReport) -> Iterator[dict[str, Any]]:
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


def tables_of(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
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
