"""How a run authenticates to the object store: session tokens, regions, keys of the source, keys that expire."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import fsspec
import pytest

from bfr_models.errors import BfrError
from flows.cli.command import explain
from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.storage.store import Store, shared_store
from tasks.verify_run import verify_run
from tests import support
from tests.faults.fault_proxy import FaultProxy, Request
from tests.metadata_server import keys_of_a_role

ROWS = 8


def dataset(bucket: str, tmp_path: Path) -> str:
    """The URL of a small dataset in the bucket."""
    file = support.write_parquet(tmp_path / "a.parquet", support.make_rows(ROWS))
    Store(f"{bucket}/src").write("a.parquet", file.read_bytes())
    return f"{bucket}/src"


def credential(request: Request) -> list[str]:
    """key / day / region / service / aws4_request: the scope of the signature."""
    return request.headers["authorization"].partition("Credential=")[2].partition(",")[0].split("/")


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_every_request_says_who_asks_where_and_who_pays(
    proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataset(bucket, tmp_path)
    monkeypatch.setitem(fsspec.config.conf, "bfr", {source: {"requester_pays": True}})
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-an-hour")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-2")
    proxy.requests.clear()
    restore_without_prefect(
        RestoreRun(source=source, destination=f"{bucket}/dst", method="passthrough", engine="local")
    )
    assert {request.headers.get("x-amz-security-token") for request in proxy.requests} == {"a-token-of-an-hour"}
    assert {tuple(credential(request)[2:4]) for request in proxy.requests} == {("eu-central-2", "s3")}
    of_source = [request for request in proxy.requests if "src" in request.path]
    payers = {request.headers.get("x-amz-request-payer") for request in of_source}
    assert len(of_source) >= 3 and payers == {"requester"}
    others = [request for request in proxy.requests if "src" not in request.path]
    assert not [request for request in others if "x-amz-request-payer" in request.headers]


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_a_source_that_one_user_may_read_and_a_destination_that_another_may_write(
    proxy: FaultProxy, bucket: str, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command: keys of the destination in the environment, of the source in a profile."""
    source = dataset(bucket, tmp_path)
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/reader"]},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket[5:]}", f"arn:aws:s3:::{bucket[5:]}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    boto3.client("s3", endpoint_url=proxy.url).put_bucket_policy(Bucket=bucket[5:], Policy=policy)
    (tmp_path / "keys").write_text("[reader]\naws_access_key_id=reader\naws_secret_access_key=reader-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "writer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "writer-secret")
    destination = f"{bucket}-written"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(destination)
    with pytest.raises(PermissionError):
        Store(source).read("a.parquet")

    places = {bucket: {"profile": "reader"}, destination: {}}
    outside = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    outside |= {"PREFECT_API_URL": prefect_server, "PYTHONPATH": str(support.ROOT), "FSSPEC_BFR": json.dumps(places)}
    command = [str(Path(sys.executable).with_name("bfr")), "restore", source, destination, "--method", "passthrough"]
    command += ["--engine", "local"]
    proxy.requests.clear()
    result = subprocess.run(command, check=False, env=outside, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = verify_run(destination)
    assert found["ok"] and found["rows"] == ROWS
    keys = {(re.split("[/?]", request.path)[1], credential(request)[0]) for request in proxy.requests}
    assert keys == {(bucket[5:], "reader"), (destination[5:], "writer")}
    monkeypatch.setitem(fsspec.config.conf, "bfr", places)
    with pytest.raises(PermissionError):
        Store(source).write("b.parquet", b"")


def committed(proxy: FaultProxy) -> int:
    """How many shards are done."""
    return sum(request.method == "PUT" and "/dst/commits/" in request.path for request in proxy.requests)


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_keys_that_expire_in_the_middle_end_a_run_that_goes_on_with_new_ones(
    proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RestoreRun(
        source=dataset(bucket, tmp_path), destination=f"{bucket}/dst", method="passthrough", engine="local",
        shard_rows=2,
    )  # fmt: skip
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
    is_old = {"x-amz-security-token": "old"}.items()
    proxy.choose = lambda request: "expired" if committed(proxy) and is_old <= request.headers.items() else None
    with pytest.raises((BfrError, OSError)) as ended:
        restore_without_prefect(run)
    code, words = explain(ended.value)
    assert code == 1 and re.search("credentials that have expired; renew .* run the same command again", words), words
    done = committed(proxy)
    assert 1 <= done < ROWS // 2
    monkeypatch.setenv("AWS_SESSION_TOKEN", "new")
    shared_store.cache_clear()  # the command is another process, whose connections are new
    restore_without_prefect(run)
    assert verify_run(run.destination)["rows"] == ROWS and committed(proxy) <= ROWS // 2 + 2


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_keys_that_renew_themselves_last_a_whole_run(
    proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container's role has them: each set is told to end in a minute, so that the next request has another."""
    source = dataset(bucket, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with keys_of_a_role() as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.url)
        proxy.requests.clear()
        proxy.choose = lambda request: "expired" if role.is_over(request.headers["x-amz-security-token"]) else None
        restore_without_prefect(
            RestoreRun(source=source, destination=f"{bucket}/dst", method="passthrough", engine="local", shard_rows=2)
        )
        assert verify_run(f"{bucket}/dst")["rows"] == ROWS
    tokens = {request.headers["x-amz-security-token"] for request in proxy.requests}
    assert len(tokens) > 20 and not proxy.faults
