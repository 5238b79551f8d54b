"""Keys as webdataset's authors define them, and tar files of bounded size."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tasks.export import webdataset
from tasks.export.webdataset import TarFiles, extension_of, key_of
from tasks.storage.store import Store


@pytest.mark.parametrize(
    ("path", "key", "extension"),
    [
        ("1931/a.jpg", "1931/a", ".jpg"),
        ("1931/a.b.JPG", "1931/a_b", ".jpg"),
        ("v1.2/scan", "v1.2/scan", ".bin"),
        (".hidden", "hidden", ".bin"),
        ("a/.b.c.tif", "a/_b_c", ".tif"),
    ],
)
def test_a_key_has_no_dot_in_its_file_name(path: str, key: str, extension: str) -> None:
    assert (key_of(path), extension_of(path)) == (key, extension)


def test_a_full_tar_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_BYTES", 4000)
    tars = TarFiles(Store(str(tmp_path)), "shard")
    places = [tars.add({f"é{n}.jpg": bytes(1500), f"é{n}.json": b"{}"}) for n in range(3)]
    tars.close()
    assert places == ["shard-00.tar", "shard-01.tar", "shard-02.tar"] and tars.written == 3
    with tarfile.open(tmp_path / "shard-02.tar") as tar:
        assert tar.getnames() == ["é2.jpg", "é2.json"]
    empty = TarFiles(Store(str(tmp_path)), "none")
    empty.close()
    assert not (tmp_path / "none-00.tar").exists()
