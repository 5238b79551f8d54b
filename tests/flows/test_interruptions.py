"""The real command, ended half-way by signals, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.restore_dataset import restore_without_prefect
from tests import support

ROWS, SHARDS = 16, 8
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, plugin_path: str, prefect_server: str) -> Iterator[Start]:
    """Starts `bfr restore` over a small dataset, with a method that takes its time."""
    support.write(tmp_path / "src" / "a.parquet", support.rows(ROWS), group_rows=2)
    settings = "{method: faulty, options: {seconds: 0.2}, shard_rows: 2, actors: 1, gpus_per_actor: 0}"
    (tmp_path / "run.yaml").write_text(settings)
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("bfr")), "restore", "src", "dst", "--config", "run.yaml"]
        outside = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=outside | {"PYTHONPATH": plugin_path, "PREFECT_API_URL": prefect_server} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_commits(destination: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(destination.glob("commits/*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no commits in two minutes"
        time.sleep(0.02)
    assert len(list(destination.glob("commits/*.json"))) < SHARDS


def undisturbed(folder: Path) -> dict[str, bytes]:
    run = support.run(folder, "faulty", shard_rows=2, destination=str(folder / "undisturbed"))
    restore_without_prefect(run)
    return support.pictures(folder / "undisturbed")


def test_a_driver_that_is_killed_resumes_with_the_same_command(
    start: Start, ray_cluster: str, faulty: str, tmp_path: Path
) -> None:
    first = start(RAY_ADDRESS=ray_cluster)
    wait_for_commits(tmp_path / "dst", first, 2)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    done = support.snapshot(tmp_path / "dst" / "commits")
    (tmp_path / "dst" / "data" / "orphan-000000000000.parquet").write_bytes(b"of an attempt that was cut off")
    second = start(RAY_ADDRESS=ray_cluster)
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert "16 rows in = 16 restored + 0 rejected" in output
    assert done.items() <= support.snapshot(tmp_path / "dst" / "commits").items(), "what was done was done again"
    support.assert_whole(tmp_path / "dst", ROWS)
    assert support.pictures(tmp_path / "dst") == undisturbed(tmp_path)


def test_a_driver_that_is_terminated_says_so_leaves_nothing_running_and_can_go_on(
    start: Start, faulty: str, tmp_path: Path
) -> None:
    process = start()
    wait_for_commits(tmp_path / "dst", process, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in children)
    began = time.monotonic()
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 30
    assert "interrupted; what is done is kept" in errors and "Traceback" not in errors and not output
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
    assert not (tmp_path / "dst" / "run.json").exists()
    restore_without_prefect(support.run(tmp_path, faulty, options={"seconds": 0.2}, shard_rows=2))
    support.assert_whole(tmp_path / "dst", ROWS)
