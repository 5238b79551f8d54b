"""What fuzzing has found (`tests/fuzz`), and its siblings: garbage is answered in our own words, and costs no more than
itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.datasets.archives import Entry, read_entries
from tasks.datasets.image_column import IMAGE, with_image_features
from tasks.pack_pictures import pack_pictures
from tasks.runs.listing import list_source
from tests import support


def zipped(method: int = zipfile.ZIP_STORED) -> bytearray:
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(""), b"")
        for name in ("a.png", "b.png"):
            archive.writestr(name, bytes(range(250)) * 9)
    return bytearray(file.getvalue())


def entries(data: bytes, tmp_path: Path) -> list[Entry]:
    (tmp_path / "a.zip").write_bytes(data)
    return list(read_entries(str(tmp_path / "a.zip")) or ())


def test_a_member_without_a_name_is_left_out(tmp_path: Path) -> None:
    found = entries(bytes(zipped()), tmp_path)
    assert [(entry.name, entry.skipped) for entry in found] == [
        ("", "a member without a name"), ("a.png", ""), ("b.png", ""),
    ]  # fmt: skip


def test_members_that_lie_before_the_archive_are_lost_alone(tmp_path: Path) -> None:
    data = zipped()
    at = data.rindex(b"PK\5\6") + 16  # where the list of members starts
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 9000).to_bytes(4, "little")
    assert ["broken" in entry.lost for entry in entries(bytes(data), tmp_path)[1:]] == [True, True]


def test_a_broken_bzip2_member_is_lost_alone(tmp_path: Path) -> None:
    data = zipped(zipfile.ZIP_BZIP2)
    at = data.index(b"BZh")
    data[at + 4 : at + 12] = bytes(8)
    assert ["broken" in entry.lost for entry in entries(bytes(data), tmp_path)[1:]] == [True, False]


def parquet(table: pa.Table, tmp_path: Path, replaced: tuple[bytes, bytes] | None = None) -> str:
    pq.write_table(table, file := io.BytesIO(), compression="none", use_dictionary=False, write_statistics=False)
    data = file.getvalue() if replaced is None else file.getvalue().replace(*replaced)
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / "a.parquet").write_bytes(data)
    return str(tmp_path / "in")


def rows(source: str, tmp_path: Path) -> list[dict[str, object]]:
    pack_pictures(source, str(tmp_path / "out"), overwrite=True)
    found: list[dict[str, object]] = pq.read_table(tmp_path / "out").to_pylist()
    return found


def test_an_image_is_kept_whatever_is_wrong_with_its_name(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([{"bytes": b"pixels", "path": "xxxx.png"}], IMAGE)})
    (row,) = rows(parquet(table, tmp_path, (b"xxxx", b"x\xe4x\xff")), tmp_path)
    assert row["image"] == {"bytes": b"pixels", "path": None}


def test_ids_that_python_does_not_know_are_refused(tmp_path: Path) -> None:
    days = pa.array([2**31 - 1], pa.int32()).view(pa.date32())
    source = parquet(pa.table({"id": days, "image": pa.array([b"pixels"])}), tmp_path)
    with pytest.raises(UsageError, match=r"expected strings or integers in column 'id', found date32"):
        rows(source, tmp_path)


@pytest.mark.parametrize(
    "replaced", [(b"pppp", b"p\xffp\xff"), (b"image", b"im\xffge"), (b"\x15\x04\x19", b"\xff\xff\xff")]
)
def test_a_broken_footer_is_said_with_its_file(replaced: tuple[bytes, bytes], tmp_path: Path) -> None:
    table = pa.table({"pppp": ["a"], "image": pa.array([b"pixels"])})
    source = parquet(table, tmp_path, replaced)
    with pytest.raises(UsageError, match=r"expected a whole Parquet file at .*a\.parquet, found one that is damaged"):
        rows(source, tmp_path)
    with pytest.raises(UsageError, match=r"expected a Parquet file at .*a\.parquet, found one that cannot be read"):
        list_source(support.make_run(tmp_path, source=source))


@pytest.mark.parametrize(
    "noted", [b"\xff", b"[]", b"7", b"null", b'{"info": null}', b'{"info": {"features": [1]}}', b"[" * 10**5]
)
def test_other_notes_under_the_key_of_datasets_are_no_features(noted: bytes) -> None:
    schema = with_image_features(pa.schema([("image", IMAGE)], metadata={b"huggingface": noted}), ["image"])
    features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}}
