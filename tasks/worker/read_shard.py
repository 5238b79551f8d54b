"""Reads the rows of one shard, with range requests for its row groups only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import RowError
from bfr_models.rng import derive_seed
from tasks.datasets.fetch_images import Fetcher
from tasks.datasets.folder_columns import with_folder_columns
from tasks.datasets.image_column import Fetch, addresses, image_bytes, with_image_fields
from tasks.datasets.row_groups import read_row_groups, take_rows, value_at
from tasks.datasets.row_ids import row_ids
from tasks.runs.shards import Shard, require_unchanged
from tasks.worker.job import Columns, Job, Order


@dataclass(frozen=True)
class Row:
    """One input row; `index` counts from the first row that the shard covers."""

    index: int
    id: str
    seed: int
    place: int = 0  # in its file
    error: RowError | None = None

    def failed(self, error: RowError) -> Row:
        """The same row, marked as one that could not be restored."""
        return replace(self, error=error)


@dataclass(frozen=True)
class ShardInput:
    """A shard as it was read, its images still encoded."""

    rows: list[Row]
    columns: Columns
    table: pa.Table | None  # all columns; None if they were not read
    fetch: Fetch

    def without(self, errors: Mapping[int, RowError]) -> ShardInput:
        """The same shard with errors for some rows, by index; an earlier error stays."""
        bad = (row.index in errors and row.error is None for row in self.rows)
        rows = [row.failed(errors[row.index]) if is_bad else row for row, is_bad in zip(self.rows, bad, strict=True)]
        return replace(self, rows=rows)

    def image_bytes(self, row: Row) -> bytes | None:
        """The encoded image of a row, fetched if the row has only its address. RowError `missing` if there is
        neither."""
        return self._bytes(row, self.columns.image)

    def gt_bytes(self, row: Row) -> bytes | None:
        """The encoded ground truth of a row; None without a column for it."""
        return self._bytes(row, self.columns.gt) if self.columns.gt else None

    def mask_bytes(self, row: Row) -> bytes | None:
        """The encoded mask of a row; None without a column for it."""
        return self._bytes(row, self.columns.mask) if self.columns.mask else None

    def untouched(self, row: Row) -> dict[str, Any]:
        """The image cell of a row as it was read, as a struct of bytes and path."""
        cell = self._cell(row, self.columns.image) if self.table is not None else None
        if isinstance(cell, dict):
            return {"bytes": cell.get("bytes"), "path": cell.get("path")}
        return {
            "bytes": cell if isinstance(cell, bytes) else None,
            "path": cell if isinstance(cell, str) else None,
        }

    def _bytes(self, row: Row, column: str) -> bytes | None:
        return image_bytes(self._cell(row, column), self.fetch)

    def _cell(self, row: Row, column: str) -> Any:
        assert self.table is not None, "rows of an unreadable row group have no cells"
        return value_at(self.table[column], row.index)


def read_shard(order: Order, job: Job) -> ShardInput:
    """The rows of a shard. Those that the order rejects have an error, and so have those of unreadable row groups.
    BfrError if the file has changed since it was planned."""
    require_unchanged(order.shard)
    source = _unread(order.shard, job.columns, order.unreadable) if order.unreadable else _read(order.shard, job)
    return source.without({index: RowError("worker_killed", why) for index, why in order.poison.items()})


def _read(shard: Shard, job: Job) -> ShardInput:
    with shard.open() as source:
        table, unread = read_row_groups(pq.ParquetFile(source), range(shard.row_group_start, shard.row_group_stop))
    table = with_image_fields(with_folder_columns(table, shard.name), job.columns.image)
    ids = row_ids(shard.name, shard.first_row, table)
    if shard.picked is not None:
        table, ids = take_rows(table, shard.picked), [ids[row] for row in shard.picked]
        unread = {place: unread[row] for place, row in enumerate(shard.picked) if row in unread}
    one_stream = job.method.draws_one_stream
    rows = [
        Row(i, row_id, job.seed if one_stream else derive_seed(job.seed, row_id), shard.numbers[i])
        for i, row_id in enumerate(ids)
    ]
    fetch = Fetcher(shard.dataset, addresses(table[job.columns.image]))
    failures = {index: RowError("unreadable", why) for index, why in unread.items()}
    return ShardInput(rows, job.columns, table, fetch).without(failures)


def _unread(shard: Shard, columns: Columns, why: str) -> ShardInput:
    """The shard with all rows rejected, without reading any of them."""
    failure = RowError("worker_killed", why)
    rows = [Row(i, place, 0, error=failure) for i, place in enumerate(shard.places)]
    return ShardInput(rows, columns, None, Fetcher(shard.dataset))
