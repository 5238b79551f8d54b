"""Faults at random points of a run, one after another: every row ends up there once, with the undisturbed bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import fsspec
import pytest

from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tests import support
from tests.faults.fault_proxy import FaultProxy
from tests.faults.nemesis import GROUP_ROWS, ROWS, Nemesis, one_round, source_url, write_source

SEED = 7
FAULTS = (
    "SIGKILL of the driver",
    "a second driver",
    "a committed file is gone",
    "connections reset",
    "a committed file is cut",
    "truncated bodies",
    "slow responses",
)
NEEDED = (
    "flows.restore_dataset",
    "tasks.worker.shard_worker",
    "tasks.finish_run",
    "s3fs",
    "tests.faulty_methods",
    __name__,
)
SOURCE_AND_DESTINATION = tuple[str, str]


class Driver:
    """A run in a process of its own, as `subprocess` would show it."""

    def __init__(self, args: SOURCE_AND_DESTINATION, process: ForkServerProcess) -> None:
        self.args, self._process = args, process
        self.kill = process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> None:
        self._process.join(timeout)


class QuickNemesis(Nemesis):
    """Drivers without Prefect and Ray, forked from a process that has imported all they need."""

    def start(self, source: str, destination: str, **limits: int) -> Any:
        return self.run((source, destination))

    def run(self, command: SOURCE_AND_DESTINATION) -> Any:
        source, destination = command
        run = RestoreRun(
            source=source,
            destination=destination,
            method="faulty",
            options={"seconds": 0.2},
            shard_rows=GROUP_ROWS,
            engine="local",
            recogniser="none",
        )
        process = multiprocessing.get_context("forkserver").Process(target=drive, args=(run, self.proxy.url, self.log))
        process.start()
        return Driver(command, process)


def drive(run: RestoreRun, endpoint: str, log: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)
        restore_without_prefect(run)


@pytest.fixture
def nemesis(moto: tuple[str, int], faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Over a bucket with a dataset; this process reaches it without faults."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{moto[0]}:{moto[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "bfr-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "bfr-test-secret")
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(NEEDED))
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("nemesis")
    with FaultProxy(moto, slow_seconds=0.2) as proxy:
        nemesis = QuickNemesis("s3://nemesis", proxy, {}, None, tmp_path, startup_seconds=1, zombie_seconds=0)
        write_source(nemesis, "")
        yield nemesis


@pytest.mark.minutes
def test_faults_at_random_points_cost_no_row_and_no_byte(nemesis: QuickNemesis) -> None:
    driver = nemesis.start(source_url(nemesis, ""), "s3://nemesis/undisturbed")
    driver.wait(300)
    assert driver.poll() == 0, nemesis.log.read_text()
    expected = support.restored_images_at("s3://nemesis/undisturbed")
    nemesis.rng = random.Random(SEED)
    rounds = [one_round(nemesis, number, name, expected) for number, name in enumerate(FAULTS)]
    for found in rounds:
        whole = {"rows_in": ROWS, "rows_out": ROWS, "duplicates": 0, "losses": 0, "bytes_differ": 0}
        assert {name: found[name] for name in whole} == whole, found
    assert sum(found["hits"] for found in rounds) >= len(FAULTS) / 2
