"""Packing loses nothing: one row per image or page, its bytes untouched, broken ones included."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bfr_models.errors import RowError, UsageError
from flows.cli.show import pack as show_pack
from tasks.datasets import archive_limits, file_kinds
from tasks.datasets.image_column import IMAGE
from tasks.datasets.picture_rows import PackReport
from tasks.images.codec import decode
from tasks.pack_pictures import pack_pictures
from tasks.storage.store import Store
from tests.newer_formats import pdf
from tests.support import encoded, portrait
from tests.tasks.images.test_tiff_pages import multipage

Files = dict[str, bytes]


def picture(number: int, form: str = "png") -> bytes:
    return encoded(portrait(number, 24), form)


def folder_of(files: Files, at: Path) -> str:
    for name, data in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return str(at)


def zip_of(files: Files, at: Path, compression: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(at, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(at)


def tar_of(files: Files, at: Path) -> str:
    with tarfile.open(at, "w:gz" if at.suffix in (".gz", ".tgz") else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(at)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def packed(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def as_files(out: Path) -> dict[str, bytes | None]:
    return {row["id"]: row["image"]["bytes"] for row in packed(out)}


GOOD = {"b/2.jpg": picture(2, "jpeg"), "a.png": picture(1), "b/1.webp": picture(3, "webp"), "B.TIF": picture(4, "tiff")}
OTHERS = {"notes.txt": b"hello", "Thumbs.db": b"x", ".hidden/x.png": picture(5), ".DS_Store": b"x", "noext": b"x"}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_every_picture_becomes_a_row_and_the_rest_is_counted(kind: str, tmp_path: Path, out: Path) -> None:
    files = GOOD | OTHERS
    make = {"folder": folder_of, "zip": zip_of}.get(kind, tar_of)
    report = pack_pictures(make(files, tmp_path / f"in.{kind}"), str(out))
    assert as_files(out) == GOOD
    assert {row["image"]["path"] for row in packed(out)} == set(GOOD)
    assert {entry["name"] for entry in report.skipped} == set(OTHERS)
    assert all(entry["why"] for entry in report.skipped)
    assert (report.rows, report.files, report.lost) == (4, 1, [])
    assert report.bytes == (out / "part-00000.parquet").stat().st_size


def test_forty_bad_files_among_good_ones_add_up(tmp_path: Path, out: Path) -> None:
    good = {f"good/{i}.png": picture(i) for i in range(15)}
    whole = picture(1, "jpeg")
    makers = [
        lambda i: b"", lambda i: b"no picture %d" % i, lambda i: whole[: len(whole) // 2], lambda i: bytes(100 + i),
        lambda i: b"GIF89a" + bytes(i), lambda i: b"II*\0" + bytes(40), lambda i: b"<html>%d</html>" % i,
        lambda i: picture(i)[:60],
    ]  # fmt: skip
    bad = {f"bad/{i}.{('jpg', 'png', 'tif')[i % 3]}": makers[i % len(makers)](i) for i in range(40)}
    report = pack_pictures(folder_of(good | bad, tmp_path / "in"), str(out), rows_per_file=20, row_group_rows=8)
    assert as_files(out) == good | bad
    assert (report.rows, report.files) == (55, 3)
    outcomes = Counter(outcome(data) for data in as_files(out).values())
    assert outcomes == {"picture": 15, "undecodable": 40}


def outcome(data: bytes | None) -> str:
    try:
        decode(data)
    except RowError as error:
        return error.code
    return "picture"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_the_same_input_gives_the_same_files(kind: str, tmp_path: Path) -> None:
    make = {"folder": folder_of, "zip": zip_of, "tar": tar_of}[kind]
    source = make(GOOD, tmp_path / f"in.{kind}")
    for out in ("one", "two", "two"):
        pack_pictures(source, str(tmp_path / out), rows_per_file=3)
    assert Store(str(tmp_path / "one")).list() == ["part-00000.parquet", "part-00001.parquet"]
    for name in ("part-00000.parquet", "part-00001.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_webdataset_becomes_columns(tmp_path: Path, out: Path) -> None:
    samples = {
        "0/a.jpg": picture(1, "jpeg"), "0/a.json": b'{"age": 3}', "0/a.txt": "Zoë".encode(),
        "0/b.json": b"{}", "0/b.jpg": picture(2, "jpeg"),
        "0/c.seg.png": picture(3), "0/c.txt": b"\xff broken text", "0/orphan.txt": b"alone", "0/x.npy": b"x",
    }  # fmt: skip
    report = pack_pictures(tar_of(samples, tmp_path / "shard-000.tar.gz"), str(out))
    rows = {row["id"]: row for row in packed(out)}
    assert list(rows) == ["0/a.jpg", "0/b.jpg", "0/c.seg.png"]
    assert [rows["0/a.jpg"][kind] for kind in ("json", "txt", "cls")] == ['{"age": 3}', "Zoë", None]
    assert rows["0/b.jpg"]["json"] == "{}"
    assert rows["0/c.seg.png"]["txt"].endswith(" broken text")
    assert {entry["name"] for entry in report.skipped} == {"0/orphan.txt", "0/x.npy"}


def test_a_folder_of_archives_is_one_dataset_with_unique_ids(tmp_path: Path, out: Path) -> None:
    (tmp_path / "in").mkdir()
    tar_of({"x.png": picture(1), "y.png": picture(2)}, tmp_path / "in" / "1.tar")
    zip_of({"x.png": picture(3)}, tmp_path / "in" / "2.zip")
    report = pack_pictures(str(tmp_path / "in"), str(out))
    assert as_files(out) == {"x.png": picture(1), "y.png": picture(2), "x.png#2": picture(3)}
    assert report.rows == 3


def test_archives_of_different_kinds_are_not_cut_to_fit(tmp_path: Path, out: Path) -> None:
    (tmp_path / "in").mkdir()
    tar_of({"x.png": picture(1)}, tmp_path / "in" / "1.tar")
    tar_of({"y.png": picture(1), "y.txt": b"caption"}, tmp_path / "in" / "2.tar")
    with pytest.raises(UsageError, match="same columns"):
        pack_pictures(str(tmp_path / "in"), str(out))
    assert not list(out.glob("*"))


def test_hostile_member_names_are_only_names(tmp_path: Path, out: Path) -> None:
    names = ["../../escape.png", "/etc/passwd.png", "a/../../b.png"]
    for kind, make in (("zip", zip_of), ("tar", tar_of)):
        pack_pictures(make(dict.fromkeys(names, picture(1)), tmp_path / f"in.{kind}"), str(out), overwrite=True)
        assert {row["image"]["path"] for row in packed(out)} >= {"../../escape.png"}
        assert len(packed(out)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar", "in.zip", "out"]


def test_members_that_cannot_be_read_keep_their_row(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_limits, "MAX_FILE_BYTES", 5000)
    files = {"a.png": picture(1), "huge.png": bytes(6000), "b.png": picture(2)}
    source = Path(zip_of(files | {"crc.png": b"A" * 50}, tmp_path / "in.zip", zipfile.ZIP_STORED))
    source.write_bytes(source.read_bytes().replace(b"A" * 50, b"B" * 50))
    report = pack_pictures(str(source), str(out))
    expected = {"a.png": files["a.png"], "huge.png": None, "b.png": files["b.png"], "crc.png": None}
    assert as_files(out) == expected
    assert {entry["name"]: "5000" in entry["why"] for entry in report.lost} == {"huge.png": True, "crc.png": False}
    for source_of, name in ((folder_of, "in"), (tar_of, "in.tar")):
        report = pack_pictures(source_of(files, tmp_path / name), str(out), overwrite=True)
        assert as_files(out)["huge.png"] is None
        assert [entry["name"] for entry in report.lost] == ["huge.png"]


def test_links_in_a_tar_are_pictures_or_lost_and_never_left_out(tmp_path: Path, out: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(picture(1))
        archive.addfile(member, io.BytesIO(picture(1)))
        links = {"hard.png": (tarfile.LNKTYPE, "a.png"), "self.png": (tarfile.SYMTYPE, "self.png"),
                 "nowhere.png": (tarfile.SYMTYPE, "/etc/passwd")}  # fmt: skip
        for name, (kind, target) in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    report = pack_pictures(str(tmp_path / "in.tar"), str(out))
    assert as_files(out) == {"a.png": picture(1), "hard.png": picture(1), "self.png": None, "nowhere.png": None}
    assert {entry["name"] for entry in report.lost} == {"self.png", "nowhere.png"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_broken_archive_is_refused_and_nothing_stays(kind: str, tmp_path: Path, out: Path) -> None:
    files = {f"{i}.png": picture(i) for i in range(30)}
    source = Path((zip_of if kind == "zip" else tar_of)(files, tmp_path / f"in.{kind}"))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="whole archive"):
        pack_pictures(str(source), str(out), rows_per_file=1)
    assert not list(out.glob("*"))


def test_parquet_is_resharded_and_keeps_its_columns(tmp_path: Path, out: Path) -> None:
    cells = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(5)]
    first = pa.table({"id": [7, 8, None, 9, 10], "photo": pa.array(cells, IMAGE), "age": [1, 2, 3, 4, 5]})
    (tmp_path / "in").mkdir()
    pq.write_table(first, tmp_path / "in" / "1.parquet")
    report = pack_pictures(str(tmp_path / "in"), str(out), rows_per_file=2, column="photo")
    assert [row["id"] for row in packed(out)] == ["7", "8", "1.parquet#2", "9", "10"]
    assert [row["image"] for row in packed(out)] == cells
    assert [row["age"] for row in packed(out)] == [1, 2, 3, 4, 5]
    assert (report.rows, report.files) == (5, 3)
    assert b'"image"' in pq.read_schema(out / "part-00000.parquet").metadata[b"huggingface"]


def test_plain_bytes_and_addresses_in_parquet_are_kept(tmp_path: Path, out: Path) -> None:
    pq.write_table(pa.table({"image": [picture(1), None]}), tmp_path / "a.parquet")
    pack_pictures(str(tmp_path / "a.parquet"), str(out))
    assert as_files(out) == {"a.parquet#0": picture(1), "a.parquet#1": None}
    pq.write_table(pa.table({"url": ["http://a/b.png"], "image": ["a cat"]}), tmp_path / "b.parquet")
    pack_pictures(str(tmp_path / "b.parquet"), str(out), column="url", overwrite=True)
    [row] = packed(out)
    assert row["image"] == {"bytes": None, "path": "http://a/b.png"}
    assert row["source_image"] == "a cat"


@pytest.mark.parametrize("trouble", ["column", "schema", "broken"])
def test_parquet_that_does_not_fit_is_refused(trouble: str, tmp_path: Path, out: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [picture(1)], "age": [1]}), tmp_path / "in" / "1.parquet")
    if trouble == "schema":
        pq.write_table(pa.table({"image": [picture(1)], "age": ["old"]}), tmp_path / "in" / "2.parquet")
    if trouble == "broken":
        (tmp_path / "in" / "2.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match="expected"):
        pack_pictures(str(tmp_path / "in"), str(out), column="photo" if trouble == "column" else "image")
    assert not list(out.glob("*"))


def test_files_are_bounded_by_bytes_too(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.datasets.writer.MAX_GROUP_BYTES", 20_000)
    monkeypatch.setattr("tasks.datasets.picture_rows.BATCH_BYTES", 10_000)
    files = {f"{i:02}.jpg": bytes([i]) * 9000 for i in range(12)}
    pack_pictures(folder_of(files, tmp_path / "in"), str(out))
    metadata = pq.ParquetFile(out / "part-00000.parquet").metadata
    assert max(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) <= 4
    assert as_files(out) == files


def test_a_tiff_of_several_pages_gives_a_row_for_each(tmp_path: Path, out: Path) -> None:
    colours = Image.fromarray(portrait(1, 24))
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
    pages = [colours, deep, colours.convert("1"), colours.convert("CMYK"), colours.quantize(8)]
    data = multipage(pages, dpi=(300, 150), compression="tiff_lzw")
    report = pack_pictures(folder_of({"scan.tif": data, "one.tif": multipage([deep])}, tmp_path / "in"), str(out))
    rows = as_files(out)
    assert list(rows) == ["one.tif", "scan.tif", *(f"scan.tif#page={n}" for n in range(2, 6))]
    assert rows["one.tif"] == multipage([deep])
    assert report.rows == 6
    for page, (row_id, found) in zip(pages, list(rows.items())[1:], strict=True):
        image = Image.open(io.BytesIO(found or b""))
        assert np.array_equal(np.asarray(image.convert(page.mode)), np.asarray(page)), row_id
        assert (image.mode, image.info["dpi"]) == (page.mode, (300, 150))
        assert image.n_frames == (5 if row_id == "scan.tif" else 1), "the first row has the whole file"
    assert rows["scan.tif"] == data
    assert decode(rows["scan.tif#page=2"]).bit_depth == 16


def test_nothing_to_pack_and_a_destination_in_use_are_said(tmp_path: Path, out: Path) -> None:
    for source in (str(tmp_path / "nowhere"), folder_of({"a.txt": b"x"}, tmp_path / "in"), str(tmp_path / "no.zip")):
        with pytest.raises(UsageError, match="expected"):
            pack_pictures(source, str(out))
    folder_of({"a.png": picture(1)}, tmp_path / "mixed")
    pq.write_table(pa.table({"image": [picture(1)]}), tmp_path / "mixed" / "a.parquet")
    with pytest.raises(UsageError, match="found both"):
        pack_pictures(str(tmp_path / "mixed"), str(out))
    with pytest.raises(UsageError, match=r"notes\.txt"):
        pack_pictures(
            folder_of({"a.png": picture(1)}, tmp_path / "good"), folder_of({"notes.txt": b""}, tmp_path / "used")
        )


@pytest.mark.parametrize("inside", ["", "/packed", "/../in/packed"])
def test_a_destination_inside_the_source_is_refused(inside: str, tmp_path: Path) -> None:
    source = folder_of({"a.png": picture(1)}, tmp_path / "in")
    with pytest.raises(UsageError, match="expected a destination outside"):
        pack_pictures(source, f"{source}{inside}")
    assert os.listdir(source) == ["a.png"]


def test_another_dataset_is_replaced_only_when_asked(tmp_path: Path, out: Path) -> None:
    one, other = (folder_of({f"{name}.png": picture(1)}, tmp_path / name) for name in ("one", "other"))
    pack_pictures(one, str(out))
    with pytest.raises(UsageError, match=r"found another dataset of 1 files.*--overwrite"):
        pack_pictures(other, str(out))
    assert list(as_files(out)) == ["one.png"]
    folder_of({"two.png": picture(2)}, tmp_path / "one")
    pack_pictures(one, str(out), rows_per_file=1)  # the same command, although its source has grown
    assert list(as_files(out)) == ["one.png", "two.png"]
    pack_pictures(other, str(out), overwrite=True)
    assert list(as_files(out)) == ["other.png"]
    pack_pictures(str(out), str(tmp_path / "again"))  # the mark of what it was packed from does not travel along
    with pytest.raises(UsageError, match="--overwrite"):
        pack_pictures(other, str(tmp_path / "again"))


def test_one_picture_is_a_source(tmp_path: Path, out: Path) -> None:
    report = pack_pictures(folder_of({"a.png": picture(1)}, tmp_path / "in") + "/a.png", str(out))
    assert as_files(out) == {"a.png": picture(1)}
    assert isinstance(report, PackReport)


def test_names_that_are_no_utf8_dangling_links_and_pipes_cost_no_other_row(tmp_path: Path, out: Path) -> None:
    folder = Path(folder_of({"a.png": picture(1), "sub/c.png": picture(3)}, tmp_path / "in"))
    (folder / os.fsdecode(b"K\xf6ln.png")).write_bytes(picture(2))
    (folder / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    report = pack_pictures(str(folder), str(out))
    rows = {row["id"]: row["image"]["bytes"] for row in pq.read_table(out).to_pylist()}
    assert set(rows) == {"a.png", "Köln.png", "dangling.png", "pipe.png", "sub/c.png"}
    assert rows["Köln.png"] == picture(2)
    assert {lost["name"] for lost in report.lost} == {"dangling.png", "pipe.png"}


@pytest.mark.parametrize(("pattern", "names"), [
    ("*.png", {"a.png", "b.png"}), ("**/*.png", {"a.png", "b.png", "sub/c.png"}), ("sub/?.png", {"c.png"}),
    ("[ab].*", {"a.png", "b.png"}),
])  # fmt: skip
def test_a_source_may_be_a_pattern(pattern: str, names: set[str], tmp_path: Path, out: Path) -> None:
    folder_of({name: picture(1) for name in ("a.png", "b.png", "sub/c.png")}, tmp_path / "in")
    pack_pictures(f"{tmp_path}/in/{pattern}", str(out))
    assert {row["id"].rpartition("/")[2] for row in pq.read_table(out).to_pylist()} == {Path(n).name for n in names}


def test_a_folder_with_a_pattern_in_its_name_is_that_folder(tmp_path: Path, out: Path) -> None:
    folder_of({"a.png": picture(1)}, tmp_path / "scans [1923]")
    assert pack_pictures(str(tmp_path / "scans [1923]"), str(out)).rows == 1


def test_texts_of_a_webdataset_reach_their_images_or_are_missed_aloud(tmp_path: Path, out: Path) -> None:
    files = {
        "22.05.jpg": picture(1, "jpeg"), "22.05.json": b'{"year": 1923}',
        "000.lq.png": picture(2), "000.gt.png": picture(3), "000.lq.txt": b"a print", "000.cls": b"7",
        "000.x.txt": b"?", "lonely.txt": b"nobody's",
    }  # fmt: skip
    report = pack_pictures(tar_of(files, tmp_path / "set.tar"), str(out))
    rows = {row["id"]: row for row in pq.read_table(out).to_pylist()}
    assert rows["22.05.jpg"]["json"] == '{"year": 1923}'
    assert [(rows[n]["txt"], rows[n]["cls"]) for n in ("000.lq.png", "000.gt.png")] == [("a print", "7"), (None, "7")]
    assert {skipped["name"] for skipped in report.skipped} == {"000.x.txt", "lonely.txt"}


def test_formats_that_are_not_read_are_named(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_kinds, "is_installed", lambda module: module == "pydicom")
    names = ("a.png", "b.HEIC", "c.avif", "d.jp2", "e.pdf", "f.nef", "g.xyz", "h.psd", "i.dcm")
    report = pack_pictures(folder_of(dict.fromkeys(names, picture(1)), tmp_path / "in"), str(out))
    extra = "whose reader is not installed; pip install 'bfr-pipeline[formats]'"
    assert {skipped["name"]: skipped["why"] for skipped in report.skipped} == {
        "b.HEIC": f"a HEIF image, {extra}", "e.pdf": f"a PDF, {extra}", "f.nef": f"a camera's raw data, {extra}",
        "g.xyz": "not an image by its extension",
        "h.psd": "a Photoshop document, which is not read; convert it to TIFF or PNG",
    }  # fmt: skip
    assert report.rows == 4


def test_a_pdf_gives_a_row_for_each_page(tmp_path: Path, out: Path) -> None:
    pytest.importorskip("pypdfium2")
    scan = encoded(portrait(1, side=40), "jpeg")
    file = pdf(scan, "1 0 0 rg 0 0 36 108 re f", scan)
    pack_pictures(folder_of({"a.pdf": file, "b.pdf": file[:80]}, tmp_path / "in"), str(out))
    rows = {row["id"]: row["image"]["bytes"] for row in packed(out)}
    assert list(rows) == ["a.pdf", "a.pdf#page=2", "a.pdf#page=3", "b.pdf"]
    assert (rows["a.pdf"], rows["a.pdf#page=3"], rows["b.pdf"]) == (file, scan, file[:80])
    assert decode(rows["a.pdf#page=2"]).pixels.shape == (450, 300, 3)


def test_further_fields_of_an_image_become_columns(tmp_path: Path, out: Path) -> None:
    cells = [{"bytes": picture(1), "path": "a.png", "width": 24, "camera": {"make": "Leica"}}, None]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": pa.array(cells)}), tmp_path / "in" / "a.parquet")
    pack_pictures(str(tmp_path / "in"), str(out))
    packed = pq.read_table(out)
    assert packed.column_names == ["id", "image", "image.width", "image.camera"]
    assert packed["image"].to_pylist()[0] == {"bytes": picture(1), "path": "a.png"}
    assert packed["image.width"].to_pylist() == [24, None]
    assert packed["image.camera"].to_pylist() == [{"make": "Leica"}, None]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("data-00000-of-00001.arrow", "an Arrow file; write it as Parquet"),
        ("a.PARQUET", r"Parquet by another name; let it end in \.parquet"),
        ("scans.tar.bz2", "an archive that is not read; extract it"),
        ("a.psd", "a Photoshop document, which is not read; convert it"),
    ],
)
def test_where_nothing_is_read_the_reasons_are_said(name: str, why: str, tmp_path: Path, out: Path) -> None:
    source = folder_of({name: b"x"}, tmp_path / "in")
    with pytest.raises(UsageError, match=rf"found none \(1 other files; {name}: {why}"):
        pack_pictures(source, str(out))


def test_what_is_left_out_is_named_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = [{"name": f"{number}.txt", "why": "not an image by its extension"} for number in range(5)]
    lost = [{"name": "a.png", "why": "expected a file, found a pipe"}]
    show_pack({"rows": 2, "files": 1, "skipped": skipped, "lost": lost})
    printed = capsys.readouterr()
    assert (printed.out + printed.err).splitlines() == [
        "2 rows in 1 files, 5 other files skipped",
        "skipped: '0.txt', '1.txt', '2.txt', 2 more: not an image by its extension",
        "lost: 'a.png': expected a file, found a pipe",
    ]


def test_stereo_cameras_files_are_images() -> None:
    assert all(map(file_kinds.is_image, ("a.MPO", "a.jps", "a.apng", "a.dib", "a.jph")))
