"""Servers for the whole session (Ray, Prefect, Ceph, PostgreSQL), and the method that misbehaves.

Properties are checked without a deadline: a busy machine is no failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bfr_models.registry import methods
from tasks.config.environment import prepare_environment
from tests import support
from tests.generations import Ask
from tests.support import ROOT, free_ports, infra_server

settings.register_profile("no deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports Prefect: a home of its own, which child processes inherit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin on a busy machine take five times as long
    prepare_environment()
    os.environ["PREFECT_HOME"] = home = tempfile.mkdtemp(prefix="bfr-prefect-")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["RAY_AUTH_TOKEN_PATH"] = os.path.join(home, "ray_token")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What PYTHONPATH must hold for other processes to have the method `faulty` installed."""
    installed = tmp_path_factory.mktemp("site") / "faulty_methods-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[bfr.methods]\nfaulty = tests.faulty_methods:SPEC\n")
    return os.pathsep.join([str(installed.parent), str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def faulty(plugin_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the method that misbehaves, installed in this process."""
    monkeypatch.setattr(sys, "path", [*plugin_path.split(os.pathsep)[:2], *sys.path])
    methods.cache_clear()
    yield "faulty"
    methods.cache_clear()


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Makes the settings of a reprocess from `src`, two files with 3 and 2 rows, to `dst`."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(3))
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(2, first=8))
    return partial(support.make_reprocess_run, tmp_path, recogniser="none")


@pytest.fixture(scope="session")
def ray_cluster(plugin_path: str) -> Iterator[str]:
    """The address of a cluster on this machine; this process is connected to it."""
    import ray

    from tasks.engine.ray_token import prepare_token

    prepare_token()
    terminate = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", plugin_path)
        patch.delenv("RAY_ADDRESS", raising=False)
        context = ray.init(
            "local", num_cpus=8, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
    signal.signal(signal.SIGTERM, terminate)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The URL of a Prefect API with a database of its own; flows of this process use it."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=400):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def ceph() -> Iterator[tuple[str, int]]:
    """Host and port of a real S3 server."""
    if not shutil.which("radosgw"):
        pytest.skip("no radosgw: apt-get install ceph-mon ceph-osd ceph-mgr radosgw ceph-common")
    port = free_ports(3)
    with infra_server("s3-server.sh", port):
        yield "127.0.0.1", port


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL database, as Prefect's server wants it."""
    if not shutil.which("pg_ctlcluster"):
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    with infra_server("postgres-server.sh", free_ports(1)) as said:
        yield said.partition("=")[2]
