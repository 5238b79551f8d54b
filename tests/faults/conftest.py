"""S3 servers to be unkind to: moto in this process, and a real one where Ceph is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.faults.fault_proxy import FaultProxy
from tests.support import ROOT

Address = tuple[str, int]


def _ports(count: int) -> int:
    """The first of some ports in a row that are free now."""
    for first in range(17480, 60000, 10):
        with socket.socket() as one, socket.socket() as last:
            try:
                one.bind(("127.0.0.1", first))
                last.bind(("127.0.0.1", first + count - 1))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


@pytest.fixture(scope="session")
def ceph() -> Iterator[Address]:
    if not shutil.which("radosgw"):
        pytest.skip("no radosgw: apt-get install ceph-mon ceph-osd ceph-mgr radosgw ceph-common")
    folder, script = tempfile.mkdtemp(prefix="bfr-s3-"), str(ROOT / "infra" / "s3-server.sh")
    port = _ports(3)
    try:
        subprocess.run([script, "start", folder, str(port)], check=True, timeout=120, stdout=subprocess.DEVNULL)
        yield "127.0.0.1", port
    finally:
        subprocess.run([script, "stop", folder], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def moto() -> Iterator[Address]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()  # its thread is no daemon: pytest would wait for it for ever


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that spoils nothing yet; s3:// URLs of this process and its children go through it."""
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
