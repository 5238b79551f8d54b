"""Datasets made by enemies or by accident: every row is accounted for; nothing hangs, crashes or eats the memory."""

from __future__ import annotations

import io
import random
import re
import resource
import struct
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import RowError, UsageError
from flows.restore_dataset import restore_without_prefect
from tasks.datasets.image_column import IMAGE
from tasks.images.codec import decode, encode
from tasks.verify_run import verify_run
from tests import support

GOOD = support.encoded(support.portrait(1))


def restored(folder: Path, table: pa.Table, group_rows: int = 4, **settings: Any) -> dict[str, Any]:
    """A run over one table, which must leave every row somewhere."""
    (folder / "src").mkdir(exist_ok=True)
    pq.write_table(table, folder / "src" / "a.parquet", row_group_size=group_rows)
    record = restore_without_prefect(support.make_run(folder, **settings))
    found = verify_run(str(folder / "dst"))
    assert found["ok"] and found["rows"] == table.num_rows, found["problems"]
    return record


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bombs() -> dict[str, bytes]:
    """Small pictures with something beside their pixels that inflates to 128 MiB."""
    bomb = b"name\0\0" + zlib.compress(bytes(2**27), 9)
    return {
        "bomb in a text chunk": GOOD[:33] + chunk(b"zTXt", bomb) + GOOD[33:],
        "bomb in a text chunk behind": GOOD[:-12] + chunk(b"zTXt", bomb) + GOOD[-12:],
        "bomb in a colour profile": GOOD[:33] + chunk(b"iCCP", bomb) + GOOD[33:],
    }


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, a refinement, comes again and again."""
    jpeg = support.encoded(support.portrait(2), "jpeg", progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[start:-2] * (count - jpeg.count(b"\xff\xda")) + jpeg[-2:]


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header may say anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def hostile_pictures() -> dict[str, bytes]:
    jpeg = support.encoded(support.portrait(2), "jpeg")
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 65533 - 2) + b"Exif\0\0" + bytes(65533 - 2 - 6)
    endless = b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0" * 20
    return {
        "bomb": png(60_000, 60_000, bytes(10**6)),
        **bombs(),
        "a JPEG of 400 scans": with_scans(400),
        "says more pixels than there are": png(5000, 5000, bytes(100)),
        "says fewer pixels than there are": png(8, 8, bytes(10**6)),
        "no pixels": png(0, 0, b""),
        "a web page in front": b"<html><script>alert(1)</script></html>" + GOOD,
        "an archive behind": GOOD + b"PK\x03\x04" + bytes(200),
        "a JPEG called PNG": jpeg,
        "EXIF of 64 KiB of nothing": jpeg[:2] + exif + jpeg[2:],
        "EXIF without end": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(endless) + 2) + endless + jpeg[2:],
        "zeros": bytes(4096),
        "an executable": b"\x7fELF" + bytes(200),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "one byte": b"\xff",
    }


def test_hostile_pictures_are_restored_or_rejected_by_name(tmp_path: Path) -> None:
    pictures = hostile_pictures()
    rows = [{"id": name, "image": {"bytes": data, "path": "innocent.png"}} for name, data in pictures.items()]
    schema = pa.schema([("id", pa.string()), ("image", IMAGE)])
    began = time.monotonic()
    record = restored(tmp_path, pa.Table.from_pylist(rows, schema=schema), max_rejects=1.0)
    assert time.monotonic() - began < 60
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


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_beside_the_pixels_is_not_inflated(name: str) -> None:
    data = bombs()[name]
    tracemalloc.start()
    with pytest.raises(RowError, match="undecodable"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25


def test_a_jpeg_has_at_most_a_hundred_scans() -> None:
    assert decode(with_scans(100)).pixels.shape == (support.SIDE, support.SIDE, 3)
    with pytest.raises(RowError, match="undecodable: expected a JPEG of at most 100 scans"):
        decode(with_scans(101))


def test_fill_and_junk_between_the_scans_hide_none() -> None:
    """What decoders pass over: bytes that are no marker, and any number of FF before one."""
    with pytest.raises(RowError, match="at most 100 scans"):
        decode(with_scans(400).replace(b"\xff\xda", b"junk\xff\0\xff\xff\xff\xda"))


def test_what_lies_in_a_segment_or_behind_the_end_of_a_jpeg_is_no_scan() -> None:
    """A thumbnail, or the film of a moving photo."""
    jpeg, scans = support.encoded(support.portrait(2), "jpeg"), b"\xff\xda\0\2" * 400
    comment = b"\xff\xfe" + struct.pack(">H", len(scans) + 2) + scans
    assert decode(jpeg[:2] + comment + jpeg[2:] + scans).pixels.shape == (support.SIDE, support.SIDE, 3)


def test_segments_without_end_are_not_walked_for_ever() -> None:
    jpeg = with_scans(400)
    start = jpeg.index(b"\xff\xda")
    with pytest.raises(RowError, match="at most 100 scans and 10000 segments"):
        decode(jpeg[:start] + b"\xff\xfe\0\2" * 20_000 + jpeg[start:])


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind, at = rng.randrange(6), rng.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 64))
        else:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other)) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def fuzzed(count: int) -> list[bytes]:
    rng, face = random.Random(20260), support.portrait(5, side=40)
    seeds = [support.encoded(face, form) for form in ("png", "jpeg", "webp", "tiff", "bmp", "gif")]
    seeds.append(cv2.imencode(".png", face.astype(np.uint16) * 257)[1].tobytes())
    seeds.append(support.encoded(face, "tiff", compression="tiff_lzw"))
    seeds.append(support.encoded(face, "jpeg", progressive=True))
    return [mutated(rng, seeds) for _ in range(count)]


def test_two_thousand_mutated_pictures_decode_or_are_refused_in_time_and_memory() -> None:
    codes = Counter[str]()
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for data in fuzzed(2000):
        began = time.monotonic()
        try:
            picture = decode(data)
            if picture.pixels.size < 3 * 10**6:
                encode(picture.pixels, "png", like=picture)
            codes["fine"] += 1
        except RowError as error:
            codes[error.code] += 1
        slowest = max(slowest, time.monotonic() - began)
    assert codes.total() == 2000 and codes["fine"] > 100 and codes["undecodable"] > 100
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
