"""The rows of one shard: read with range requests, and written back as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import RowError
from bfr_models.rng import derive_seed
from tasks.datasets.fetch_images import Fetcher
from tasks.datasets.row_groups import read_row_groups, take_rows, value_at
from tasks.datasets.writer import IMAGE, Fetch, addresses, image_bytes, with_image_features
from tasks.runs.shards import Shard, row_ids
from tasks.storage.filesystem import redact
from tasks.worker.job import Columns

FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("outcome", pa.string()),
        ("identity_similarity", pa.float32()),
        ("lpips", pa.float32()),
        ("sharpness", pa.float32()),
    ]
)
OUTPUT = pa.schema(
    [
        ("id", pa.string()),
        ("restored", IMAGE),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("faces", pa.list_(FACE)),
        ("faces_found", pa.int32()),
        ("identity_similarity", pa.float32()),
        ("identity_similarity_gt", pa.float32()),
        ("psnr", pa.float32()),
        ("ssim", pa.float32()),
        ("lpips", pa.float32()),
        ("method", pa.string()),
        ("fingerprint", pa.string()),
        ("seed", pa.int64()),
        ("seconds", pa.float32()),
        ("identity_degrees", pa.float32()),
        ("identity_degrees_gt", pa.float32()),
        ("ms_ssim", pa.float32()),
        ("niqe", pa.float32()),
        ("lmd_dlib_5", pa.float32()),
        ("note", pa.string()),
    ]
)
REJECTED = pa.schema(
    [
        ("id", pa.string()),
        ("image", IMAGE),
        ("error", pa.string()),
        ("detail", pa.string()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One input row. `index` counts from the shard's first row."""

    index: int
    id: str
    seed: int
    error: RowError | None = None

    def failed(self, error: RowError) -> Row:
        """This row as one that could not be restored."""
        return replace(self, error=error)


@dataclass(frozen=True)
class ShardInput:
    """A shard as it was read: its pictures still encoded."""

    rows: list[Row]
    columns: Columns
    table: pa.Table | None  # all columns; None where they were not read
    fetch: Fetch

    def without(self, errors: Mapping[int, RowError]) -> ShardInput:
        """The same with an error for some rows, by index."""
        bad = (row.index in errors and row.error is None for row in self.rows)
        rows = [row.failed(errors[row.index]) if is_bad else row for row, is_bad in zip(self.rows, bad, strict=True)]
        return replace(self, rows=rows)

    def picture(self, row: Row) -> bytes | None:
        """The encoded picture of a row, fetched where there is only an address. RowError `missing` if it is not
        there."""
        return self._bytes(row, self.columns.image)

    def gt(self, row: Row) -> bytes | None:
        """The encoded ground truth of a row, where there is one."""
        return self._bytes(row, self.columns.gt) if self.columns.gt else None

    def mask(self, row: Row) -> bytes | None:
        """The encoded mask of a row, where there is one."""
        return self._bytes(row, self.columns.mask) if self.columns.mask else None

    def untouched(self, row: Row) -> dict[str, Any]:
        """The picture cell of a row as it came, as a struct of bytes and path."""
        cell = self._cell(row, self.columns.image) if self.table is not None else None
        if isinstance(cell, dict):
            return {"bytes": cell.get("bytes") or None, "path": cell.get("path")}
        return {
            "bytes": cell or None if isinstance(cell, bytes) else None,
            "path": cell if isinstance(cell, str) else None,
        }

    def _bytes(self, row: Row, column: str) -> bytes | None:
        return image_bytes(self._cell(row, column), self.fetch)

    def _cell(self, row: Row, column: str) -> Any:
        assert self.table is not None, "rows of an unreadable row group have no cells"
        return value_at(self.table[column], row.index)


def read_shard(shard: Shard, columns: Columns, run_seed: int) -> ShardInput:
    """Reads a shard. A row group that does not read becomes rows with an error each."""
    with shard.open() as source:
        table, unread = read_row_groups(pq.ParquetFile(source), range(shard.row_group_start, shard.row_group_stop))
    rows = [
        Row(i, row_id, derive_seed(run_seed, row_id))
        for i, row_id in enumerate(row_ids(shard.name, shard.first_row, table))
    ]
    fetch = Fetcher(shard.dataset, addresses(table[columns.image]))
    failures = {index: RowError("unreadable", why) for index, why in unread.items()}
    return ShardInput(rows, columns, table, fetch).without(failures)


def unread_shard(shard: Shard, columns: Columns, why: str) -> ShardInput:
    """A shard whose rows are all rejected, without a look at them."""
    failure = RowError("worker_killed", why)
    rows = [Row(i, place, 0, failure) for i, place in enumerate(shard.places)]
    return ShardInput(rows, columns, None, Fetcher(shard.dataset))


def output_table(
    source: ShardInput, rows: Sequence[Row], values: Iterable[dict[str, Any]], keep_input: bool
) -> pa.Table:
    """The input's own columns of `rows`, then the results. An input column with a result's name moves aside."""
    assert source.table is not None, "rows of an unreadable row group are never restored"
    names = source.table.column_names
    carried = [name for name in names if name != "id" and (keep_input or name != source.columns.image)]
    kept = take_rows(source.table.select(carried), [row.index for row in rows])
    columns: dict[str, Any] = {}
    for name in carried:
        aside = name
        while aside in OUTPUT.names or (aside != name and aside in names):
            aside = f"source_{aside}"
        columns[aside] = kept[name]
    results = pa.Table.from_pylist(list(values), schema=OUTPUT)
    noted = {key: value for key, value in (kept.schema.metadata or {}).items() if key == b"huggingface"}
    table = pa.table(columns | {name: results[name] for name in OUTPUT.names}, metadata=noted)
    images = [name for name in table.column_names if table.schema.field(name).type == IMAGE]
    return table.replace_schema_metadata(with_image_features(table.schema, images).metadata)


def rejected_table(shard: Shard, source: ShardInput, rows: Iterable[Row]) -> pa.Table:
    """The rows that could not be restored, with their untouched bytes and the reason."""
    values = [
        {
            "id": row.id,
            "image": source.untouched(row),
            "error": row.error.code,
            "detail": row.error.detail,
            "source_file": redact(shard.source),
            "source_row": shard.first_row + row.index,
        }
        for row in rows
        if row.error is not None
    ]
    return pa.Table.from_pylist(values, schema=with_image_features(REJECTED, ["image"]))
