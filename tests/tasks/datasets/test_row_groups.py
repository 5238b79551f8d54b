"""Row groups of any size are read, whatever Arrow can hold in one piece."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.datasets import row_groups, writer
from tasks.datasets.image_column import IMAGE
from tasks.datasets.row_groups import batches, read_row_groups
from tasks.datasets.writer import encode_table, table_of

ROWS, BYTES = 36, 60 * 2**20


def large_group(path: Path) -> Path:
    """2.1 GiB in one row group, all of it zeros that share one buffer and take 100 kB on disk."""
    zeros, ends = pa.py_buffer(bytes(BYTES)), pa.array([0, BYTES], pa.int32()).buffers()[1]
    data = pa.Array.from_buffers(pa.binary(), 1, [None, ends, zeros])
    cells = [pa.StructArray.from_arrays([data, pa.array([f"{i}.png"])], names=["bytes", "path"]) for i in range(ROWS)]
    table = pa.table({"id": [str(i) for i in range(ROWS)], "image": pa.chunked_array(cells, IMAGE)})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False, row_group_size=ROWS)
    return path


@pytest.mark.long
def test_a_row_group_of_more_than_two_gibibytes_is_read(tmp_path: Path) -> None:
    parquet = pq.ParquetFile(large_group(tmp_path / "large.parquet"))
    assert parquet.num_row_groups == 1 and parquet.metadata.row_group(0).total_byte_size > 2**31
    before, seen = pa.total_allocated_bytes(), 0
    for batch in batches(parquet, 64):
        seen += batch.num_rows
        assert pa.total_allocated_bytes() - before < 2**29  # a few rows at a time
    assert seen == ROWS
    table, unread = read_row_groups(parquet, range(1))
    assert (table.num_rows, unread) == (ROWS, {})
    assert [len(table["image"][i]["bytes"].as_buffer()) for i in (0, ROWS - 1)] == [BYTES, BYTES]


@pytest.mark.parametrize("large_from", [0, 10, 39])
def test_pieces_are_made_smaller_where_arrow_cannot_hold_them(large_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of uneven sizes, which the footer does not show; no row is lost or read twice."""
    pq.write_table(pa.table({"n": range(40)}), sink := io.BytesIO(), row_group_size=7)
    whole = pq.ParquetFile.iter_batches

    def at_most_three(self: pq.ParquetFile, step: int, **options: object) -> object:
        for batch in whole(self, step, **options):
            if batch.num_rows > 3 and batch["n"][-1].as_py() >= large_from:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", at_most_three)
    monkeypatch.setattr(row_groups, "_MAX_AT_ONCE", 0)
    parquet = pq.ParquetFile(sink)
    assert [n for batch in batches(parquet, 16) for n in batch["n"].to_pylist()] == list(range(40))
    assert read_row_groups(parquet, range(parquet.num_row_groups))[0]["n"].to_pylist() == list(range(40))


def test_large_rows_are_written_in_pieces_and_small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAX_PIECE_BYTES", 1000)
    monkeypatch.setattr(writer, "MAX_GROUP_BYTES", 1500)
    noise = np.random.default_rng(0).bytes
    rows = [{"id": str(i), "image": {"bytes": noise(400), "path": None}} for i in range(10)]
    table = table_of(rows, pa.schema([("id", pa.string()), ("image", IMAGE)]))
    assert table.to_pylist() == rows and table["image"].num_chunks == 5
    parquet = pq.ParquetFile(io.BytesIO(encode_table(table, 64)))
    assert parquet.read().to_pylist() == rows
    assert [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)] == [4, 4, 2]
    assert table_of([], table.schema).num_rows == 0
