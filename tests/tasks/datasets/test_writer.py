"""Datasets are published whole, in files and row groups of bounded size, and name their image columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.datasets.image_column import IMAGE, find_image_column, image_bytes, with_image_features
from tasks.datasets.writer import DatasetWriter, encode_table, rename_clashing
from tasks.storage.store import Store


def table(count: int, size: int = 10) -> pa.Table:
    cells = [{"bytes": bytes([i % 256]) * size, "path": f"{i}.png"} for i in range(count)]
    return pa.table({"id": [str(i) for i in range(count)], "image": pa.array(cells, IMAGE)})


def groups(store: Store, name: str) -> list[int]:
    metadata = pq.ParquetFile(store.open_input(name)).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def ids(store: Store) -> list[str]:
    return [i for name in store.list() for i in pq.read_table(store.open_input(name))["id"].to_pylist()]


@pytest.mark.parametrize("step", [1, 3, 7, 25])
def test_files_and_row_groups_are_the_same_however_rows_arrive(step: int, tmp_path: Path) -> None:
    store, rows = Store(str(tmp_path)), table(25)
    with DatasetWriter(store, 10, 4) as writer:
        for start in range(0, 25, step):
            writer.write(rows.slice(start, step))
    assert writer.files == store.list() == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [groups(store, name) for name in writer.files] == [[4, 4, 2], [4, 4, 2], [4, 1]]
    assert ids(store) == rows["id"].to_pylist()
    assert writer.rows == 25
    assert writer.bytes == sum(file.size for file in store.versions())


def test_a_column_beside_reserved_ones_is_told_from_them_in_any_case() -> None:
    names = ["Width", "WIDTH", "source_width", "camera", "Camera"]
    renamed = rename_clashing(names, ["width"])
    assert renamed == ["source_source_Width", "source_source_source_WIDTH", "source_width", "camera", "Camera"]
    assert rename_clashing(["Width", "note"], ["width", "faces"]) == ["source_Width", "note"]


def test_a_file_ends_when_it_is_large_enough(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with DatasetWriter(store, 1000, 2, max_file_bytes=50_000) as writer:
        writer.write(table(20, size=10_000))
    assert len(writer.files) > 2
    assert all(file.size < 80_000 for file in store.versions())
    assert ids(store) == [str(i) for i in range(20)]


def test_an_exception_takes_the_dataset_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("notes.txt", b"not ours")

    def write_and_fail() -> None:
        with DatasetWriter(store, 4, 2) as writer:
            writer.write(table(10))
            assert store.list() != ["notes.txt"]
            raise RuntimeError("camera on fire")

    with pytest.raises(RuntimeError, match="camera"):
        write_and_fail()
    assert store.list() == ["notes.txt"]


def test_an_exception_leaves_no_parts_of_an_earlier_dataset_which_would_look_like_a_whole_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with DatasetWriter(store, 2, 2) as writer:
        writer.write(table(10))

    def write_and_fail(rows: int) -> None:
        with DatasetWriter(store, 2, 2) as writer:
            writer.write(table(rows))
            raise RuntimeError("camera on fire")

    with pytest.raises(RuntimeError, match="camera"):
        write_and_fail(1)
    assert ids(store) == [str(i) for i in range(10)]  # nothing had taken its place yet
    with pytest.raises(RuntimeError, match="camera"):
        write_and_fail(4)
    assert store.list() == []


def test_a_shorter_dataset_leaves_no_parts_of_the_longer_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for count in (10, 3):
        with DatasetWriter(store, 2, 2) as writer:
            writer.write(table(count))
    assert ids(store) == ["0", "1", "2"]


def test_no_rows_still_have_columns(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with DatasetWriter(store, 2, 2, table(1).schema):
        pass
    assert pq.read_table(store.open_input("part-00000.parquet")).schema.names == ["id", "image"]
    assert ids(store) == []


@pytest.mark.parametrize(
    "other",
    [pa.table({"id": ["1"]}), table(1).append_column("more", pa.array([1])), pa.table({"id": ["1"], "image": ["url"]})],
    ids=["fewer", "more", "type"],
)
def test_rows_of_another_kind_are_refused_and_not_cut(other: pa.Table, tmp_path: Path) -> None:
    writer = DatasetWriter(Store(str(tmp_path)), 2, 2)
    writer.write(table(1))
    with pytest.raises(UsageError, match="expected"):
        writer.write(other)


@pytest.mark.parametrize(("rows_per_file", "row_group_rows"), [(0, 1), (1, 0)])
def test_sizes_of_nothing_are_refused(rows_per_file: int, row_group_rows: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 row"):
        DatasetWriter(Store(str(tmp_path)), rows_per_file, row_group_rows)


def test_pictures_are_stored_as_they_are_and_the_rest_is_compressed() -> None:
    data = encode_table(table(8), 3)
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert metadata.num_row_groups == 3
    columns = [metadata.row_group(0).column(i) for i in range(metadata.num_columns)]
    assert {c.path_in_schema: c.compression for c in columns} == {
        "id": "ZSTD", "image.bytes": "UNCOMPRESSED", "image.path": "ZSTD",
    }  # fmt: skip
    assert data == encode_table(table(8), 3)


def test_image_features_are_added_to_those_that_are_noted() -> None:
    noted = {"huggingface": json.dumps({"info": {"features": {"label": {"_type": "Value"}, "gone": {}}}}), "mine": "x"}
    schema = pa.schema([("label", pa.int64()), ("image", IMAGE)], metadata=noted)
    metadata = with_image_features(schema, ["image"]).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features == {"label": {"_type": "Value"}, "image": {"_type": "Image"}}
    assert metadata[b"mine"] == b"x"


@pytest.mark.parametrize(
    ("kind", "cell", "expected"),
    [
        (pa.binary(), b"abc", b"abc"),
        (pa.large_binary(), b"abc", b"abc"),
        (IMAGE, {"bytes": b"abc", "path": "x.png"}, b"abc"),
        (IMAGE, {"bytes": None, "path": "x.png"}, None),
        (IMAGE, {"bytes": b"", "path": "x.png"}, b""),  # an empty file
        (IMAGE, None, None),
        (pa.binary(), b"", b""),
        (pa.binary(), None, None),
        (pa.string(), None, None),
    ],
)
def test_the_bytes_of_every_kind_of_cell(kind: pa.DataType, cell: Any, expected: bytes | None) -> None:
    [stored] = pa.array([cell], kind).to_pylist()
    assert image_bytes(stored) == expected


def test_addresses_are_left_to_the_fetcher() -> None:
    assert image_bytes("http://a/b.png", {"http://a/b.png": b"abc"}.get) == b"abc"
    assert image_bytes({"bytes": None, "path": "x.png"}, {"x.png": b"abc"}.get) == b"abc"
    assert image_bytes({"bytes": b"here", "path": "x.png"}, {"x.png": b"abc"}.get) == b"here"
    with pytest.raises(UsageError, match="http://a"):
        image_bytes("http://a/b.png")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), IMAGE], ids=str)
def test_picture_columns_are_found(kind: pa.DataType) -> None:
    assert find_image_column(pa.schema([("id", pa.string()), ("photo", kind)]), "photo").name == "photo"


@pytest.mark.parametrize("name", ["image", "id", "box"])
def test_a_wrong_column_lists_the_right_ones(name: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("photo", IMAGE), ("box", pa.struct([("x", pa.int32())]))])
    with pytest.raises(UsageError, match=r"photo \(struct") as caught:
        find_image_column(schema, name)
    assert "--column" in str(caught.value)
