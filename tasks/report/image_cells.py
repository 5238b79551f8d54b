"""Reads single images out of large row groups, a few at a time: a page needs one of a group of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError
from tasks.datasets.image_column import embedded_bytes
from tasks.datasets.row_ids import row_ids
from tasks.runs.sealed import run_parquet
from tasks.runs.shards import Shard, require_unchanged
from tasks.storage.store import Store

PIECE = 16 * 2**20  # bytes of images held at once
STREAM = 2**20  # bytes read at once
FAILED = (BfrError, OSError, pa.ArrowException, KeyError)


class ImageCells:
    """Reads until so many bytes have been read in all: from then on, no image is there."""

    def __init__(self, most: int) -> None:
        self._left = most

    def of_run(self, store: Store, path: str, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """Images of a data file or one of rejects, by the (ascending) numbers of their rows."""
        with run_parquet(store, path, STREAM) as parquet:
            yield from self._cells(parquet, 0, column, rows)

    def of_source(self, shard: Shard, column: str, ids: Sequence[str], rows: Sequence[int]) -> dict[int, bytes | None]:
        """The input images of rows of a data file that has these ids, by number; none if the source has changed."""
        try:
            require_unchanged(shard)
            with shard.open() as source:
                parquet = pq.ParquetFile(source, buffer_size=STREAM)
                places = _places(parquet, shard, ids)
                by_place = {places[row]: row for row in rows if row in places}
                found = self._cells(parquet, shard.row_group_start, column, sorted(by_place))
                return {by_place[place]: image for place, image in found}
        except FAILED:
            return {}

    def _cells(
        self, parquet: pq.ParquetFile, first_group: int, column: str, rows: Sequence[int]
    ) -> Iterator[tuple[int, bytes | None]]:
        """Rows are counted from the first of `first_group`."""
        if column not in parquet.schema_arrow.names:
            return
        counts = [parquet.metadata.row_group(group).num_rows for group in range(first_group, parquet.num_row_groups)]
        for group, (stop, count) in enumerate(zip(accumulate(counts), counts, strict=True), first_group):
            inside = [row - (stop - count) for row in rows if stop - count <= row < stop]
            if inside:
                for row, image in self._group(parquet, group, column, inside):
                    yield stop - count + row, image

    def _group(
        self, parquet: pq.ParquetFile, group: int, column: str, rows: Sequence[int]
    ) -> Iterator[tuple[int, bytes | None]]:
        facts = parquet.metadata.row_group(group)
        each = facts.total_byte_size // max(facts.num_rows, 1)
        self._left -= each * (rows[-1] + 1)
        if self._left < 0:
            return
        wanted, number = set(rows), 0
        at_once = max(1, min(64, PIECE // max(each, 1)))
        for batch in parquet.iter_batches(at_once, row_groups=[group], columns=[column]):
            for place in range(batch.num_rows):
                if number + place in wanted:
                    yield number + place, embedded_bytes(batch.column(0)[place].as_py())
            number += batch.num_rows
            if number > rows[-1]:
                return


def _places(parquet: pq.ParquetFile, shard: Shard, ids: Sequence[str]) -> dict[int, int]:
    """Where the rows of a data file are among those of their shard's row groups: they are in the same order."""
    groups = list(range(shard.row_group_start, shard.row_group_stop))
    names = [name for name in ("id",) if name in parquet.schema_arrow.names]
    if names:
        table = parquet.read_row_groups(groups, columns=names)
    else:
        table = pa.table({"row": range(sum(parquet.metadata.row_group(group).num_rows for group in groups))})
    every = row_ids(shard.name, shard.first_row, table)
    covered = iter(shard.picked if shard.picked is not None else range(len(every)))
    places: dict[int, int] = {}
    for row, row_id in enumerate(ids):
        place = next((place for place in covered if every[place] == row_id), None)
        if place is None:
            break
        places[row] = place
    return places
