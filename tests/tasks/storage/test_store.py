"""A store keeps its promises on every kind of storage: whole files, one creator, nothing stale."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from bfr_models.errors import UsageError
from tasks.runs.source import open_source
from tasks.storage import local_disk
from tasks.storage.filesystem import connect
from tasks.storage.redaction import redact
from tasks.storage.store import MAX_RECORD, FileVersion, Store


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server in this process, and a bucket in it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            host, port = server.get_host_and_port()
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir("archive")
            yield "s3://archive"
    finally:
        server.stop()  # its thread is no daemon: pytest would wait for it for ever


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"


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


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    assert Store(str(tmp_path / "root")).list() == ["link/x"]


def test_a_bucket_or_folder_has_settings_of_its_own_by_the_longest_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"s3://scans": {"requester_pays": True, "profile": "reader"}, "s3://scans/ours/": {"anon": True}}
    monkeypatch.setitem(fsspec.config.conf, "bfr", places)
    whole, ours, other = (connect(url)[0] for url in ("s3://scans/a/x", "s3://scans/ours/y", "s3://scans-2/z"))
    assert whole.requester_pays and not whole.anon and whole.storage_options["profile"] == "reader"
    assert ours.anon and not ours.requester_pays
    assert not other.requester_pays and not other.anon


@pytest.mark.parametrize(
    ("url", "advice"),
    [("nfsx://host/a", "protocol"), ("gs://bucket/a", "gcsfs"), ("s3:/bucket/a", "s3://bucket/a")],
)
def test_a_url_without_a_driver_says_what_to_do(url: str, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        Store(url)


def test_no_message_shows_a_secret() -> None:
    assert redact("https://me:hunter2@host:8/a?X-Amz-Signature=f00") == "https://host:8/a"
    assert redact("/data/a?b") == "/data/a?b"
    with pytest.raises(UsageError) as caught:
        open_source("http://me:hunter2@127.0.0.1:9/a.parquet?sig=f00")
    assert "127.0.0.1:9" in str(caught.value)
    assert not {"hunter2", "f00"} & set(str(caught.value).replace("@", " ").replace("=", " ").split())


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns or {"id": ["a"]}), sink)
    return sink.getvalue().to_pybytes()


def sources(url: str) -> list[str]:
    return [file.path for _, file in open_source(url)]


def test_a_source_is_a_folder_a_glob_or_one_file(url: str) -> None:
    store = Store(url)
    names = ["b.parquet", "a.parquet", "in/c.parquet", "_tmp/d.parquet", ".e.parquet", "in/_f.parquet", "readme.txt"]
    for name in names:
        store.write(name, parquet())
    assert sources(url) == ["a.parquet", "b.parquet", "in/c.parquet"]
    assert sources(f"{url}/*.parquet") == ["a.parquet", "b.parquet"]
    assert sources(f"{url}/i?/*.parquet") == ["in/c.parquet"]
    assert sources(f"{url}/in/c.parquet") == ["c.parquet"]
    [(where, file)] = open_source(f"{url}/in/c.parquet")
    assert file == FileVersion("c.parquet", len(parquet()), store.info("in/c.parquet").version)
    assert pq.ParquetFile(where.open_input(file.path)).read().to_pydict() == {"id": ["a"]}


def test_of_a_finished_run_only_the_data_is_a_source(url: str) -> None:
    store = Store(url)
    for name in ("data/1.parquet", "data/2.parquet", "features/1.parquet", "rejected/1.parquet", "plan/0.parquet"):
        store.write(name, parquet())
    pq.write_table(pa.table({"data": ["data/1.parquet", None]}), manifest := io.BytesIO())
    store.write("manifest.parquet", manifest.getvalue())
    store.write("commits/1.json", b"{}")
    with pytest.raises(UsageError, match="not finished"):
        open_source(url)
    store.write("run.json", b"{}")
    assert sources(url) == ["data/1.parquet"], "the second is of a state that is not finished"
    store.delete("data/1.parquet")
    with pytest.raises(UsageError, match="found one missing"):
        open_source(url)


def test_nothing_found_says_so(url: str) -> None:
    Store(url).write("a.txt", b"")
    for place in (url, f"{url}/none", f"{url}/*.parquet", f"{url}/a.parquet"):
        with pytest.raises(UsageError, match=r"expected .*parquet"):
            open_source(place)


def test_a_folder_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    Store(str(tmp_path / "[2019] scans")).write("a.parquet", parquet())
    assert sources(str(tmp_path / "[2019] scans")) == ["a.parquet"]
