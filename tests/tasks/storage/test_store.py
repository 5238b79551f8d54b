"""A store keeps its promises on every kind of storage: whole files, one creator, nothing stale."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tasks.storage.store import MAX_RECORD, Store


def test_a_written_file_is_read_listed_and_deleted(url: str) -> None:
    store = Store(url)
    assert store.list() == store.list("nowhere") == []
    store.write("b/2.bin", b"two")
    store.write("a.bin", b"one")
    store.write("b/1.bin", b"")
    assert store.list() == ["a.bin", "b/1.bin", "b/2.bin"]
    assert store.list("b") == ["b/1.bin", "b/2.bin"]
    assert (store.read("b/2.bin"), store.read("b/1.bin")) == (b"two", b"")
    store.delete("a.bin")
    store.delete("a.bin")
    assert not store.exists("a.bin")
    assert store.exists("b/2.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a.bin")


def test_a_second_write_replaces_and_changes_the_version(url: str) -> None:
    store = Store(url)
    store.write("x", b"first")
    before = store.info("x")
    assert store.versions() == [before]
    store.write("x", b"other")
    assert store.read("x") == b"other"
    assert (before.path, before.size) == ("x", 5)
    assert store.info("x").version != before.version


def test_create_keeps_what_is_there(url: str) -> None:
    store = Store(url)
    assert store.create("commits/1.json", b"mine")
    assert not store.create("commits/1.json", b"yours")
    assert store.read("commits/1.json") == b"mine"
    store.delete("commits/1.json")
    assert store.create("commits/1.json", b"again")


def test_a_file_is_replaced_only_as_it_was_seen(url: str) -> None:
    store = Store(url)
    assert store.replace("current.json", b"first", None)
    assert not store.replace("current.json", b"of one who saw none", None)
    seen = store.info("current.json").version
    assert store.replace("current.json", b"second", seen)
    assert not store.replace("current.json", b"of one who saw the first", seen)
    assert store.read("current.json") == b"second" and store.list() == ["current.json"]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_many_who_replace_the_same_one_wins(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = str(tmp_path) if kind == "local" else f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"
    Store(url).write("current.json", b"seen by all")
    seen = Store(url).info("current.json").version
    with ThreadPoolExecutor(8) as writers:
        won = list(writers.map(lambda i: Store(url).replace("current.json", f"writer {i}".encode(), seen), range(8)))
    assert won.count(True) == 1 and Store(url).read("current.json") == f"writer {won.index(True)}".encode()


def test_what_another_connection_wrote_is_seen_at_once(url: str) -> None:
    ours, theirs = Store(url), Store(url)
    assert ours.list() == []
    assert not ours.exists("new")
    theirs.write("new", b"1")
    assert ours.exists("new")
    assert ours.list() == ["new"]
    theirs.delete("new")
    assert ours.list() == []


def test_an_open_file_is_read_by_ranges(url: str) -> None:
    store = Store(url)
    store.write("x", bytes(range(200)))
    for sequential in (False, True):
        with store.open_input("x", sequential=sequential) as first, store.open_input("x") as second:
            first.seek(-5, os.SEEK_END)
            assert first.read(2) == bytes([195, 196])
            assert second.read(3) == bytes([0, 1, 2])
            assert first.read() == bytes([197, 198, 199])


def test_a_folder_of_a_store_and_a_pickled_store_reach_the_same_files(url: str) -> None:
    store = Store(url)
    store.write("in/x", b"1")
    assert store.sub("in").read("x") == b"1"
    assert store.sub("in").url("x") == store.url("in/x")
    assert pickle.loads(pickle.dumps(store.sub("in"))).list() == ["x"]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_racing_threads_exactly_one_creates(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path) if kind == "local" else f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"
    stores = [Store(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            made = list(pool.map(lambda i, n=number: stores[i].create(f"c/{n}", b"%d" % i), range(4)))
            assert sum(made) == 1
            assert stores[0].read(f"c/{number}") == b"%d" % made.index(True)


CLAIM = """
import sys; from tasks.storage.store import Store
store = Store(sys.argv[1])
print(*(number for number in range(100) if store.create(f"c/{number}", bytes(1000))))
"""


def test_of_racing_processes_exactly_one_creates(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    claims = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert sorted(int(number) for claim in claims for number in claim) == list(range(100))
    assert len(list(tmp_path.rglob("*"))) == 101  # and no temporary file is left


def _refusal(status: int, error: OSError) -> OSError:
    error.__cause__ = ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]
    return error


class _Scripted:
    """A filesystem whose puts end as the script says."""

    protocol = "s3"

    def __init__(self, *endings: OSError | None) -> None:
        self.endings = list(endings)

    def pipe_file(self, path: str, data: bytes, mode: str = "") -> None:
        if ending := self.endings.pop(0):
            raise ending


@pytest.mark.parametrize(
    ("endings", "made"),
    [
        ([FileExistsError()], False),
        ([_refusal(412, OSError(22, "Invalid argument"))], False),  # as s3fs words it on Ceph
        ([_refusal(409, OSError(5, "conflict")), None], True),  # the other writer failed
        ([_refusal(409, OSError(5, "conflict")), FileExistsError()], False),
    ],
)
def test_refusals_of_a_store_are_understood(endings: list[OSError | None], made: bool, bucket: str) -> None:
    store = Store(bucket)
    store._fs = fs = _Scripted(*endings)
    assert store.create("x", b"1") is made
    assert fs.endings == []


def test_trouble_is_not_taken_for_existence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.storage.retry.DEADLINE", 0)
    store = Store(bucket)
    store._fs = _Scripted(_refusal(503, OSError(16, "slow down")))
    with pytest.raises(OSError, match="slow down"):
        store.create("x", b"1")
    with pytest.raises(FileNotFoundError):
        Store("s3://no-such-bucket").write("x", b"1")


def test_create_is_for_small_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        Store(str(tmp_path)).create("x", bytes(MAX_RECORD + 1))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd"])
def test_paths_stay_inside(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"):
        Store(str(tmp_path)).write(path, b"1")
