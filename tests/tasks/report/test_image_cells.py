"""Single images of large row groups: in pieces, within a budget, and by the ids that a data file has kept."""

from __future__ import annotations

from pathlib import Path

from tasks.report.image_cells import ImageCells
from tasks.runs.shards import shards_of_file
from tasks.storage.store import Store
from tests import support


def test_images_come_by_the_number_of_their_row_across_groups(tmp_path: Path) -> None:
    rows = support.make_rows(10)
    support.write_parquet(tmp_path / "a.parquet", rows, group_rows=4)
    found = dict(ImageCells(2**30).of_run(Store(str(tmp_path)), "a.parquet", "image", [1, 3, 4, 9]))
    assert found == {number: rows[number]["image"]["bytes"] for number in (1, 3, 4, 9)}


def test_the_input_of_a_restored_row_is_found_behind_rejected_ones_and_equal_ids(tmp_path: Path) -> None:
    rows = [row | {"id": name} for row, name in zip(support.make_rows(8), "aabbccdd", strict=True)]
    path = support.write_parquet(tmp_path / "a.parquet", rows, group_rows=2)
    version = Store(str(tmp_path)).info("a.parquet").version
    _, shard = shards_of_file(str(path), "a.parquet", version, [2, 2, 2, 2], 4)
    found = ImageCells(2**30).of_source(shard, "image", ["c", "d", "d"], [0, 2])  # the second c was rejected
    assert found == {0: rows[4]["image"]["bytes"], 2: rows[7]["image"]["bytes"]}


def test_a_column_that_is_not_there_has_no_images(tmp_path: Path) -> None:
    """A row that is its own ground truth has it in the input alone."""
    support.write_parquet(tmp_path / "a.parquet", support.make_rows(2))
    assert list(ImageCells(2**30).of_run(Store(str(tmp_path)), "a.parquet", "gt", [0])) == []


def test_a_source_that_has_changed_gives_none_and_nothing_is_read_beyond_the_budget(tmp_path: Path) -> None:
    rows = [row | {"id": str(i)} for i, row in enumerate(support.make_rows(4))]
    path = support.write_parquet(tmp_path / "a.parquet", rows)
    (shard,) = shards_of_file(str(path), "a.parquet", "another version", [4], 4)
    assert ImageCells(2**30).of_source(shard, "image", ["0"], [0]) == {}
    assert list(ImageCells(10).of_run(Store(str(tmp_path)), "a.parquet", "image", [0])) == []
