"""Malicious and broken datasets: every row is accounted for; nothing hangs, crashes or exhausts memory."""

from __future__ import annotations

import io
import random
import re
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import RowError, UsageError
from flows.restore_dataset import restore_without_prefect
from tasks.datasets.image_column import IMAGE
from tasks.images.codec import decode, encode
from tasks.verify_run import verify_run
from tests import support
from tests.hostile_images import GOOD, fuzzed, hostile_pictures


def restored(folder: Path, table: pa.Table, group_rows: int = 4, **settings: Any) -> dict[str, Any]:
    """A run over one table; checks that every row is accounted for."""
    (folder / "src").mkdir(exist_ok=True)
    pq.write_table(table, folder / "src" / "a.parquet", row_group_size=group_rows)
    record = restore_without_prefect(support.make_run(folder, **settings))
    found = verify_run(str(folder / "dst"))
    assert found["ok"] and found["rows"] == table.num_rows, found["problems"]
    return record


def test_hostile_pictures_are_restored_or_rejected_by_name(tmp_path: Path) -> None:
    pictures = hostile_pictures()
    rows = [{"id": name, "image": {"bytes": data, "path": "innocent.png"}} for name, data in pictures.items()]
    schema = pa.schema([("id", pa.string()), ("image", IMAGE)])
    began = time.monotonic()
    record = restored(tmp_path, pa.Table.from_pylist(rows, schema=schema), max_rejects=1.0)
    assert time.monotonic() - began < 240
    assert set(record["rejects"]) <= {"undecodable", "too_large", "too_small"}
    fine = {row["id"] for row in support.read_table(tmp_path / "dst" / "data").to_pylist()}
    assert fine >= {"an archive behind", "a JPEG called PNG", "EXIF of 64 KiB of nothing"}
    assert not fine & {
        "bomb",
        "a JPEG of 400 scans",
        "a web page in front",
        "zeros",
        "an executable",
        "PostScript",
        "SVG",
        "one byte",
    }


@pytest.mark.parametrize("count", [500, pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_pictures_decode_or_are_refused_in_time_and_memory(count: int) -> None:
    codes = Counter[str]()
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for data in fuzzed(count):
        began = time.thread_time()
        try:
            picture = decode(data)
            if picture.pixels.size < 3 * 10**6:
                encode(picture.pixels, "png", like=picture)
            codes["fine"] += 1
        except RowError as error:
            codes[error.code] += 1
        slowest = max(slowest, time.thread_time() - began)
    assert codes.total() == count and codes["fine"] > count / 20 and codes["undecodable"] > count / 20
    assert set(codes) <= {"fine", "undecodable", "too_large", "too_small", "missing"}
    assert slowest < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * 2**20  # KiB: one of 200 megapixels


def test_mutated_pictures_are_all_accounted_for_in_a_run(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array(fuzzed(200), pa.binary())})
    record = restored(tmp_path, table, group_rows=50, shard_rows=100, max_rejects=1.0)
    assert record["totals"]["rows"] == 200 and record["totals"]["restored"] > 10


def column(kind: str) -> pa.Array:
    pictures = [support.encoded(support.portrait(i)) for i in range(8)]
    structs = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pictures)]
    return {
        "binary": lambda: pa.array(pictures, pa.binary()),
        "large_binary": lambda: pa.array(pictures, pa.large_binary()),
        "binary_view": lambda: pa.array(pictures, pa.binary_view()),
        "dictionary": lambda: pa.array(pictures, pa.binary()).dictionary_encode(),
        "null path": lambda: pa.array(
            [{"bytes": data, "path": None} for data in pictures],
            pa.struct([("bytes", pa.binary()), ("path", pa.null())]),
        ),
        "large struct": lambda: pa.array(
            structs, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
        ),
        "other order": lambda: pa.array(structs, pa.struct([("path", pa.string()), ("bytes", pa.binary())])),
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["binary", "large_binary", "binary_view", "dictionary", "null path", "large struct", "other order"]
)
def test_pictures_come_in_many_types(kind: str, tmp_path: Path) -> None:
    others = {
        "view": pa.array([str(i) for i in range(8)], pa.string_view()),
        "label": pa.array(["a", "b"] * 4).dictionary_encode(),
        "nested": pa.array([{"a": [{"b": i}]} for i in range(8)]),
        "nothing": pa.nulls(8),
        "when": pa.array(range(8), pa.timestamp("ns", "UTC")),
        "pairs": pa.array([[("k", i)] for i in range(8)], pa.map_(pa.string(), pa.int64())),
    }
    table = pa.table({"image": column(kind)} | others)
    assert restored(tmp_path, table)["totals"]["restored"] == 8
    data = support.read_table(tmp_path / "dst" / "data")
    for name in others:
        kept, given = (found[name].cast(pa.int64()) if name == "when" else found[name] for found in (data, table))
        assert kept.to_pylist() == given.to_pylist()


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.binary()), pa.struct([("path", pa.string())]), pa.null()])
def test_columns_that_hold_no_pictures_are_refused_before_any_work(kind: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    pq.write_table(pa.table({"image": pa.nulls(3, kind)}), tmp_path / "src" / "a.parquet")
    with pytest.raises(UsageError, match="expected images in column 'image'"):
        restore_without_prefect(support.make_run(tmp_path))


@pytest.mark.parametrize(("rows", "group_rows"), [(5, 1), (10_000, 10_000)])
def test_row_groups_of_one_row_and_of_ten_thousand(rows: int, group_rows: int, tmp_path: Path) -> None:
    pictures = [GOOD if i % 2500 == 0 else None for i in range(rows)]
    record = restored(tmp_path, pa.table({"image": pa.array(pictures, pa.binary())}), group_rows, max_rejects=1.0)
    assert record["totals"]["rows"] == rows and record["totals"]["restored"] == -(-rows // 2500)


def test_pictures_that_are_all_null_with_foreign_paths_are_missing(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": path} for path in ("a.png", "/etc/passwd", "s3://elsewhere/x", "../../x")]
    record = restored(tmp_path, pa.table({"image": pa.array(rows, IMAGE)}), max_rejects=1.0)
    assert record["rejects"] == {"missing": 4}
    rejected = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert [row["image"] for row in rejected] == rows


def test_ids_that_are_not_unique_or_would_like_to_be_paths_and_pages(tmp_path: Path) -> None:
    ids = ["../../escape", "<script>alert(1)</script>", "a\0b", "same", "same", "", "x" * 5000, "\u202egnp.exe"]
    before = set(tmp_path.parent.iterdir())
    table = pa.table({"id": ids, "image": pa.array([GOOD] * 7 + [b"broken"], pa.binary())})
    (tmp_path / "src").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "src" / "b.parquet")  # and not unique across files
    pq.write_table(table, tmp_path / "src" / "a.parquet", row_group_size=3)
    restore_without_prefect(support.make_run(tmp_path))
    found = verify_run(str(tmp_path / "dst"))
    assert found["ok"] and found["rows"] == 10
    assert Counter(support.read_ids(tmp_path / "dst" / "data")) == Counter(ids[:7] + ids[:2])
    assert set(tmp_path.parent.iterdir()) == before
    assert "<script>alert(1)" not in (tmp_path / "dst" / "report" / "index.html").read_text()


def test_text_that_is_not_utf8_is_carried_and_costs_no_row(tmp_path: Path) -> None:
    def text(values: list[bytes]) -> pa.Array:
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())

    names = text([b"fine", b"\xff\xfe", b"\xc3", b"good"])
    table = pa.table({"id": names, "caption": names, "image": pa.array([GOOD] * 4, pa.binary())})
    assert restored(tmp_path, table)["totals"]["restored"] == 4
    data = support.read_table(tmp_path / "dst" / "data")
    assert data["id"].to_pylist() == ["fine", "a.parquet#1", "a.parquet#2", "good"]
    assert data["caption"].cast(pa.binary()).to_pylist() == [b"fine", b"\xff\xfe", b"\xc3", b"good"]


def test_a_damaged_row_group_costs_its_own_rows_and_no_others_of_its_shard(tmp_path: Path) -> None:
    path = support.write_parquet(
        tmp_path / "src" / "a.parquet", [row | {"n": i} for i, row in enumerate(support.make_rows(16))]
    )
    damage(path, group=2)
    record = restore_without_prefect(support.make_run(tmp_path, shard_rows=16))
    assert record["totals"]["shards"] == 1 and record["rejects"] == {"unreadable": 4}
    assert support.read_table(tmp_path / "dst" / "data")["n"].to_pylist() == [*range(8), *range(12, 16)]
    assert [row["source_row"] for row in support.read_table(tmp_path / "dst" / "rejected").to_pylist()] == [
        8,
        9,
        10,
        11,
    ]
    assert verify_run(str(tmp_path / "dst"))["ok"]


def damage(path: Path, group: int) -> None:
    place = pq.ParquetFile(path).metadata.row_group(group).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)


def test_random_damage_to_a_file_never_loses_a_row(tmp_path: Path) -> None:
    whole = pa.table({"image": pa.array([GOOD] * 12, pa.binary()), "n": range(12)})
    pq.write_table(whole, sink := io.BytesIO(), row_group_size=4)
    rng, seen = random.Random(7), Counter[str]()
    for number in range(12):
        content = bytearray(sink.getvalue())
        for _ in range(3):
            content[rng.randrange(4, len(content))] ^= 1 << rng.randrange(8)
        folder = tmp_path / str(number)
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "a.parquet").write_bytes(content)
        try:
            record = restore_without_prefect(support.make_run(folder, max_rejects=1.0))
        except UsageError as refused:
            seen["refused"] += 1
            assert re.search(r"a\.parquet|column|rows", str(refused))  # noqa: PT017
            continue
        assert record["totals"]["rows"] == sum(record["rejects"].values()) + record["totals"]["restored"]
        assert verify_run(str(folder / "dst"))["ok"]
        seen["run"] += 1
    assert seen["run"] >= 3
