"""Object stores as they are found: keys that no disk could have, buckets that may not be listed, refusals in words."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from bfr_models.errors import UsageError
from flows.cli.command import explain
from tasks.datasets.archives import read_entries
from tasks.datasets.overwriting import require_free
from tasks.pack_pictures import files_of_run, pack_pictures
from tasks.runs.shards import current_version
from tasks.runs.source import open_source
from tasks.storage.store import Store
from tests import support
from tests.faults.fault_proxy import FaultProxy

IMAGE = support.encoded(support.portrait(1))
KEYS = (
    "a//b.png", "/b.png", "//c.png", "./d.png", "e/./f.png", "hash#1.png", "what?.png", "50%25.png", "a+b.png",
    " blank s.png", "Mäd\u0308chen.png", "[1].png", "st*r.png", "tab\t.png", "a\\b.png", "s3://x.png", "{a}.png",
)  # fmt: skip
"""Keys of images; those of Parquet files are made of the first."""


def put(bucket: str, key: str, data: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket[5:], Key=key, Body=data)


def test_every_key_is_read_under_its_own_name(bucket: str, tmp_path: Path) -> None:
    parquet = support.write_parquet(tmp_path / "a.parquet", support.make_rows(1)).read_bytes()
    for key in KEYS:
        put(bucket, f"images/{key}", IMAGE)
    for key in KEYS[:8]:
        put(bucket, f"rows/{key}.parquet", parquet)
    entries = read_entries(f"{bucket}/images")
    assert entries is not None
    assert {entry.name: entry.data for entry in entries} == dict.fromkeys(KEYS, IMAGE)
    found = open_source(f"{bucket}/rows")
    assert {file.path for _, file in found} == {f"{key}.parquet" for key in KEYS[:8]}
    for store, file in found:  # as a worker finds it again: by the URL alone
        assert current_version(store.url(file.path)) == file.version
        assert [one.version for _, one in open_source(f"{bucket}/rows/{file.path}")] == [file.version]


def test_a_folder_may_have_any_key(bucket: str) -> None:
    for place in ("/lead", "a//b", "ä #1?%20+", "./c"):
        store = Store(f"{bucket}/{place}")
        store.write("x/1", b"one")
        assert store.create("y", b"two") and not store.create("y", b"three")
        assert store.list() == ["x/1", "y"] and store.list("x") == ["x/1"]
        assert store.sub("x").read("1") == b"one"


def test_a_step_up_in_a_key_is_refused_by_name(bucket: str) -> None:
    put(bucket, "rows/../up.parquet", b"")
    with pytest.raises(UsageError, match=r"without a step `\.\.`.*'\.\./up\.parquet'"):
        open_source(f"{bucket}/rows")


def test_a_missing_bucket_is_said_before_any_work(bucket: str, tmp_path: Path) -> None:
    missing = f"{bucket}-missing/out"
    (tmp_path / "a.png").write_bytes(IMAGE)
    for call in (
        lambda: pack_pictures(str(tmp_path), missing),
        lambda: files_of_run(str(tmp_path), missing),
        lambda: require_free(Store(missing), "", overwrite=False),
    ):
        with pytest.raises(UsageError, match=r"expected a bucket .*found no bucket of this name; create it"):
            call()
    with pytest.raises(FileNotFoundError) as refused:
        Store(missing).write("a", b"")
    code, words = explain(refused.value)
    assert code == 2
    assert f"{missing[5:]}/a, found no such bucket; create it" in words


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_a_named_object_is_read_where_nothing_may_be_listed(
    proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = boto3.client("s3", endpoint_url=proxy.url)
    put(bucket, "a.png", IMAGE)
    put(bucket, "b.parquet", support.write_parquet(tmp_path / "b.parquet", support.make_rows(1)).read_bytes())
    _allow(owner, bucket, ["s3:GetObject"])
    closed = f"s3://{uuid.uuid4().hex}"
    owner.create_bucket(Bucket=closed[5:])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "writer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "writer-secret")
    assert [entry.data for entry in read_entries(f"{bucket}/a.png") or ()] == [IMAGE]
    assert [file.path for _, file in open_source(f"{bucket}/b.parquet")] == ["b.parquet"]
    assert files_of_run(f"{bucket}/a.png", str(tmp_path / "run")) is not None
    for url in (bucket, f"{bucket}/none.png", f"{closed}/a.png"):
        with pytest.raises(UsageError, match="cannot read s3://"):
            read_entries(url)
    with pytest.raises(UsageError, match=r"found a refusal \(AccessDenied\); check the permissions"):
        Store(f"{closed}/run").require_writable()
    with pytest.raises(PermissionError) as refused:
        Store(closed).read("a")
    assert f"{closed[5:]}/a, found a refusal" in explain(refused.value)[1]


def _allow(owner: Any, bucket: str, actions: list[str]) -> None:
    who = {"AWS": ["arn:aws:iam:::user/writer"]}
    statement = {"Effect": "Allow", "Principal": who, "Action": actions, "Resource": [f"arn:aws:s3:::{bucket[5:]}/*"]}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    owner.put_bucket_policy(Bucket=bucket[5:], Policy=json.dumps(policy))
