"""What fsspec's configuration says of a store reaches each of its requests: encryption, the style of addresses, who
pays, how often is tried."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest

from bfr_models.errors import UsageError
from flows.cli.command import explain
from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.pack_pictures import pack_pictures
from tasks.storage.filesystem import connect
from tasks.verify_run import verify_run
from tests import support
from tests.faults.fault_proxy import FaultProxy

ROWS = 3
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "bfr-key"}  # the key that `infra/s3-server.sh` knows
OWN_KEY = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """fsspec's configuration, empty."""
    conf = fsspec.config.conf
    monkeypatch.setattr("tasks.storage.filesystem.conf", conf)
    kept = dict(conf)
    conf.clear()
    yield conf
    conf.clear()
    conf.update(kept)


@pytest.fixture
def hosts(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address by name; names of buckets in front of it lead there too."""
    real = socket.getaddrinfo

    def look_up(host: str, *others: Any, **named: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith("s3.bfr.test") else host, *others, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return f"http://s3.bfr.test:{proxy.port}"


def images(folder: Path) -> str:
    for number in range(ROWS):
        (folder / f"{number}.png").write_bytes(support.encoded(support.portrait(number)))
    return str(folder)


def there_and_back(bucket: str, tmp_path: Path) -> None:
    """Images into the bucket, and a verified run from and to it."""
    pack_pictures(images(tmp_path), f"{bucket}/in")
    run = RestoreRun(source=f"{bucket}/in", destination=f"{bucket}/out", method="passthrough", engine="local")
    restore_without_prefect(run)
    found = verify_run(f"{bucket}/out")
    assert found["ok"] and found["rows"] == ROWS


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        ("moto", KMS),
        pytest.param("ceph", KMS, marks=pytest.mark.s3),
        pytest.param("ceph", OWN_KEY, marks=pytest.mark.s3),
    ],
    indirect=["proxy"],
    ids=["moto kms", "ceph kms", "ceph own key"],
)
def test_every_object_is_encrypted_as_the_configuration_says(
    kind: dict[str, str], proxy: FaultProxy, bucket: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings["bfr"] = {bucket: {"s3_additional_kwargs": kind}}
    there_and_back(bucket, tmp_path)
    puts = [request for request in proxy.requests if request.method == "PUT" and request.path.count("/") > 1]
    header = "x-amz-server-side-encryption" + ("-customer-algorithm" if kind is OWN_KEY else "")
    assert len(puts) > 5 and {request.headers.get(header) for request in puts} == {next(iter(kind.values()))}
    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=name)["Contents"]]
    heads = [client.head_object(Bucket=name, Key=key, **(kind if kind is OWN_KEY else {})) for key in keys]
    assert {head.get(next(iter(kind))) for head in heads} == {next(iter(kind.values()))}


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_a_key_that_the_store_does_not_have_is_said(bucket: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["s3"] = {"s3_additional_kwargs": KMS | {"SSEKMSKeyId": "another"}}
    with pytest.raises(OSError, match="another") as raised:
        pack_pictures(images(tmp_path), f"{bucket}/in")
    words = explain(raised.value)[1]
    assert (
        words.startswith("expected a place in a store that this machine may use at ")
        and "found a refusal (" in words
        and "another" in words
    ), words


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
@pytest.mark.parametrize("style", ["virtual", "path"])
def test_buckets_are_addressed_in_the_style_that_the_configuration_says(
    style: str, proxy: FaultProxy, bucket: str, hosts: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings["s3"] = {"endpoint_url": hosts, "config_kwargs": {"s3": {"addressing_style": style}}}
    proxy.requests.clear()
    there_and_back(bucket, tmp_path)
    name = bucket.removeprefix("s3://")
    asked = {
        (request.headers["host"].partition(".s3.")[0] == name, request.path[1:].startswith(name))
        for request in proxy.requests
    }
    assert asked == {(style == "virtual", style == "path")}


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_a_bucket_whose_readers_pay(
    proxy: FaultProxy, bucket: str, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_pictures(images(tmp_path), f"{bucket}/in")
    owner, name = boto3.client("s3", endpoint_url=proxy.url), bucket.removeprefix("s3://")
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/reader"]},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
    }
    owner.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    owner.put_bucket_request_payment(Bucket=name, RequestPaymentConfiguration={"Payer": "Requester"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
    run = support.make_run(tmp_path, source=f"{bucket}/in", destination=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="`requester_pays` in fsspec's configuration where readers pay"):
        restore_without_prefect(run)
    settings["bfr"] = {bucket: {"requester_pays": True}}
    assert restore_without_prefect(run)["totals"]["restored"] == ROWS


def test_a_setting_for_one_place_leaves_what_is_said_of_the_others(settings: dict[str, Any]) -> None:
    settings["s3"] = {"config_kwargs": {"s3": {"addressing_style": "path"}}, "client_kwargs": {"region_name": "a"}}
    settings["bfr"] = {"s3://scans": {"config_kwargs": {"read_timeout": 300}, "client_kwargs": {"verify": False}}}
    everywhere, scans = connect("s3://others/x")[0], connect("s3://scans/x")[0]
    ours = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 32}
    assert everywhere.config_kwargs.items() >= ({"s3": {"addressing_style": "path"}} | ours).items()
    assert scans.config_kwargs == everywhere.config_kwargs | {"read_timeout": 300}
    assert scans.client_kwargs == {"region_name": "a", "verify": False}
