"""Sources that are made to read what is not theirs, to wait for ever, or to fill the memory."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from tasks.datasets import archive_limits
from tasks.datasets.archives import Entry, read_entries
from tasks.runs.source import open_source
from tasks.storage.local_disk import NotAFileError
from tasks.storage.store import Store
from tests import support

PICTURE = support.encoded(support.portrait(1, 24))
MIB = 2**20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.png").write_bytes(PICTURE)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.png").write_bytes(b"secret")
    return tmp_path / "src"


def entries(source: Path, *, follow_links: bool = False) -> dict[str, Entry]:
    return {entry.name: entry for entry in read_entries(str(source), follow_links=follow_links) or ()}


def test_links_that_lead_out_of_the_source_are_not_followed(source: Path) -> None:
    (source / "link.png").symlink_to(source.parent / "secret" / "key.png")
    (source / "folder").symlink_to(source.parent / "secret")
    (source / "up").symlink_to("..")
    (source / "inside.png").symlink_to("a.png")
    found = entries(source)
    assert {name for name, entry in found.items() if entry.data} == {"a.png", "inside.png"}
    assert "leads out" in found["link.png"].lost  # its row is there, without a picture
    assert "leads out" in found["folder"].skipped and "leads out" in found["up"].skipped
    followed = entries(source, follow_links=True)
    assert followed["link.png"].data == followed["folder/key.png"].data == b"secret"


def test_archives_behind_links_that_lead_out_are_not_opened(source: Path, tmp_path: Path) -> None:
    (source / "a.png").unlink()
    with zipfile.ZipFile(tmp_path / "secret" / "s.zip", "w") as archive:
        archive.writestr("s.png", b"secret")
    (source / "s.zip").symlink_to(tmp_path / "secret" / "s.zip")
    assert "leads out" in entries(source)["s.zip"].skipped
    assert entries(source, follow_links=True)["s.png"].data == b"secret"


def test_a_link_that_is_the_source_itself_is_followed(source: Path) -> None:
    (source.parent / "link.png").symlink_to(source / "a.png")
    (source.parent / "link").symlink_to(source)
    assert entries(source.parent / "link.png")["link.png"].data == PICTURE
    assert entries(source.parent / "link")["a.png"].data == PICTURE


@pytest.mark.parametrize("target", [None, "/dev/zero", "nowhere"], ids=["pipe", "device", "nothing"])
def test_what_is_no_file_is_not_opened(target: str | None, source: Path) -> None:
    """Opening a pipe without a writer waits for ever, and a device may never end."""
    path = source / "b.png"
    os.mkfifo(path) if target is None else path.symlink_to(target)
    found = entries(source, follow_links=True)
    assert found["a.png"].data == PICTURE and found["b.png"].data is None and "expected a file" in found["b.png"].lost


def test_pipes_are_not_opened_as_parquet_or_archives_either(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.zip"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(NotAFileError):
            Store(str(tmp_path)).open_input(name)
    [(store, file)] = open_source(str(tmp_path))
    with pytest.raises(NotAFileError):
        store.read(file.path)


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header.tobuf(tarfile.GNU_FORMAT)


def a_picture_of_zeros() -> bytes:
    return member("a.png", 100 * MIB) + bytes(100 * MIB)


def many_members() -> bytes:
    return b"".join(member(f"{i}.png", 0) for i in range(12_000))


def many_sidecars() -> bytes:
    return b"".join(member(f"{i}.json", MIB) + bytes(MIB) for i in range(70))


def a_long_header(kind: bytes) -> Callable[[], bytes]:
    return lambda: member("x", 2 * MIB, kind) + b"9" * 2 * MIB


def many_long_headers() -> bytes:
    record = b"=" + b"v" * (MIB - 20_000) + b"\n"
    one = [b"%d k%03d" % (len(record) + 12, i) + record for i in range(80)]
    return b"".join(
        member("g", len(data), tarfile.XGLTYPE) + data + bytes(-len(data) % 512) + member("a.png", 0) for data in one
    )


def a_map_of_holes_without_end() -> bytes:
    header = bytearray(member("a.png", 0, tarfile.GNUTYPE_SPARSE))
    header[482] = 1  # the map goes on in the next block
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = (b"00000000001\0" * 42)[:504] + b"\1" + bytes(7)
    return bytes(header) + block * 4096


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (a_picture_of_zeros, "bytes"),
        (many_members, "files"),
        (many_sidecars, "text"),
        (many_long_headers, "text"),
        (a_long_header(tarfile.XHDTYPE), "headers of at most"),
        (a_long_header(tarfile.GNUTYPE_LONGNAME), "headers of at most"),
        (a_map_of_holes_without_end, "headers of at most"),
    ],
)
def test_a_small_tar_cannot_unpack_to_more_than_its_size_explains(
    make: Callable[[], bytes], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(make() + bytes(1024), compresslevel=1))
    assert path.stat().st_size < MIB
    with pytest.raises(UsageError, match=rf"{what}.*extract it"):
        list(read_entries(str(path)) or ())


def test_a_small_zip_cannot_either(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(100 * MIB))
    with pytest.raises(UsageError, match=r"bytes.*extract it"):
        list(read_entries(str(path)) or ())


def test_members_that_share_their_bytes_count_each_time(tmp_path: Path) -> None:
    """A hard link has no bytes of its own."""
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        picture = tarfile.TarInfo("a.png")
        picture.size = MIB
        archive.addfile(picture, io.BytesIO(os.urandom(MIB)))
        for number in range(100):
            link = tarfile.TarInfo(f"{number}.png")
            link.type, link.linkname = tarfile.LNKTYPE, "a.png"
            archive.addfile(link)
    with pytest.raises(UsageError, match="far more bytes"):
        list(read_entries(str(tmp_path / "links.tar")) or ())


def test_an_honest_archive_is_far_from_the_bounds(tmp_path: Path) -> None:
    """Plain pixels of a white page, which compress a hundred times, among pictures that do not."""
    page = support.encoded(support.portrait(2, 24) * 0 + 255, "bmp") + bytes(8 * MIB)
    with tarfile.open(tmp_path / "in.tgz", "w:gz") as archive:
        for name, data in [("page.bmp", page), *((f"{i}.png", PICTURE) for i in range(50))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.pax_headers = {"comment": "é" * 500}
            archive.addfile(info, io.BytesIO(data))
    found = entries(tmp_path / "in.tgz")
    assert len(found) == 51 and found["page.bmp"].data == page and found["49.png"].data == PICTURE


def test_texts_are_in_memory_up_to_a_bound(tmp_path: Path) -> None:
    """1,000 texts of 64 KiB that do not compress, beside tiny images."""
    texts = {f"{number}.txt": os.urandom(32 * 1024).hex() for number in range(1000)}
    with tarfile.open(tmp_path / "in.tgz", "w:gz", compresslevel=1) as archive:
        for name, data in [(f"{number}.png", PICTURE) for number in range(1000)] + list(texts.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data if isinstance(data, bytes) else data.encode()))
    tracemalloc.start()
    found = [
        entry.sidecars["txt"] == texts[f"{entry.name[:-4]}.txt"]
        for entry in read_entries(str(tmp_path / "in.tgz")) or ()
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [True] * 1000
    assert peak < 24 * MIB < sum(map(len, texts.values())) / 2


def test_a_huge_member_costs_its_own_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_limits, "MAX_FILE_BYTES", 8 * MIB)
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", PICTURE)
        with archive.open("zeros.png", "w") as member:
            for _ in range(48):
                member.write(bytes(MIB))
    tracemalloc.start()
    found = entries(tmp_path / "in.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        found["a.png"].data == PICTURE
        and found["zeros.png"].lost == "expected at most 8388608 bytes, found 50331648 or more"
    )
    assert peak < 2 * MIB


def test_a_zip_made_on_windows_has_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, system in (("scans\\1923\\a.png", 0), ("scans\\1923\\", 0), ("back\\slash.png", 3)):
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, system
            archive.writestr(info, PICTURE)
    assert list(entries(tmp_path / "in.zip")) == ["scans/1923/a.png", "back\\slash.png"]


def test_a_webdataset_may_be_in_capitals(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for name, data in (("0.JPG", PICTURE), ("0.TXT", b"a caption"), ("0.Json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert entries(tmp_path / "in.tar")["0.JPG"].sidecars == {"json": "{}", "txt": "a caption", "cls": None}
