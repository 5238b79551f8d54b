"""S3 servers to inject faults into: moto in this process, and a real one where Ceph is installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import fsspec
import pytest

from tests.faults.fault_proxy import FaultProxy
from tests.s3_server import s3_server

Address = tuple[str, int]


@pytest.fixture(scope="session")
def moto() -> Iterator[Address]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that injects nothing yet; s3:// URLs of this process and its children go through it."""
    with FaultProxy(request.getfixturevalue(request.param)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "bfr-test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "bfr-test-secret")
        yield proxy


@pytest.fixture
def bucket(proxy: FaultProxy) -> str:
    """The URL of a new bucket."""
    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"
