"""A file on a local disk is there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from tasks.storage import local_disk
from tasks.storage.store import Store


@pytest.mark.parametrize("verb", ["write", "create"])
def test_a_failed_local_write_leaves_nothing(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("kept", b"before")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_disk.os, "fsync", full_disk)
    for name in ("kept", "new"):
        with pytest.raises(OSError, match="No space left"):
            getattr(store, verb)(name, b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert store.read("kept") == b"before"


def test_a_temporary_file_of_a_killed_writer_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    assert Store(str(tmp_path)).list() == []


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    assert Store(str(tmp_path / "root")).list() == ["link/x"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_private_file_is_nobody_elses_and_others_go_by_the_umask(existing: bool, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    before = os.umask(0o022)
    try:
        if existing:
            store.write("private", b"0")
        store.write("private", b"1", private=True)
        store.write("plain", b"2")
        store.create("record", b"3")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "private": 0o600, "plain": 0o644, "record": 0o644,
    }  # fmt: skip
