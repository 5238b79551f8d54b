"""The real command, interrupted half-way by signals and then run again."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, get_current_settings, temporary_settings

from flows.restore_dataset import restore_without_prefect
from tests import support
from tests.metadata_server import ACTION, metadata_server

ROWS, SHARDS = 16, 8
Start = Callable[..., "subprocess.Popen[str]"]


def options(folder: Path) -> dict[str, Any]:
    """Those of the method."""
    return {"seconds": 0.1, "hold": str(folder / "hold")}


@pytest.fixture
def start(tmp_path: Path, plugin_path: str, prefect_server: str) -> Iterator[Start]:
    """Starts `bfr restore` over a small dataset, with a method that takes its time, and that waits with the second half
    of the rows until the file `hold` is gone."""
    rows = [
        row | {"id": f"{'waits' if i >= ROWS // 2 else 'row'}-{i}"} for i, row in enumerate(support.make_rows(ROWS))
    ]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    (tmp_path / "hold").touch()
    settings = {"method": "faulty", "options": options(tmp_path), "shard_rows": 2, "actors": 1, "gpus_per_actor": 0}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        command = [*support.BFR, "restore", "src", "dst", "--config", "run.yaml"]
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
    deadline = time.monotonic() + 400
    while len(list(destination.glob("commits/*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no commits in 400 s"
        time.sleep(0.02)
    assert len(list(destination.glob("commits/*.json"))) < SHARDS


def undisturbed(folder: Path) -> dict[str, bytes]:
    run = support.make_run(folder, "faulty", shard_rows=2, destination=str(folder / "undisturbed"))
    restore_without_prefect(run)
    return support.restored_images(folder / "undisturbed")


@pytest.mark.long
def test_a_driver_that_is_killed_resumes_with_the_same_command(
    start: Start, ray_cluster: str, faulty: str, tmp_path: Path
) -> None:
    first = start(RAY_ADDRESS=ray_cluster)
    wait_for_commits(tmp_path / "dst", first, 2)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    (tmp_path / "hold").unlink()
    done = support.snapshot(tmp_path / "dst" / "commits")
    (tmp_path / "dst" / "data" / "orphan-000000000000.parquet").write_bytes(b"of an attempt that was cut off")
    second = start(RAY_ADDRESS=ray_cluster)
    output, errors = second.communicate(timeout=400)
    assert second.returncode == 0, errors
    assert "16 rows in = 16 written (16 restored, 0 kept as they were) + 0 rejected" in output
    assert done.items() <= support.snapshot(tmp_path / "dst" / "commits").items(), "what was done was done again"
    support.assert_whole(tmp_path / "dst", ROWS)
    assert support.restored_images(tmp_path / "dst") == undisturbed(tmp_path)


@pytest.mark.long
def test_a_run_that_was_killed_is_closed_in_prefect_by_the_next_one(start: Start, tmp_path: Path) -> None:
    settings = {"method": "faulty", "options": options(tmp_path), "shard_rows": 2, "engine": "local"}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    began = datetime.now(UTC)
    first = start()
    wait_for_commits(tmp_path / "dst", first, 1)
    (driver,) = psutil.Process(first.pid).children()
    driver.kill()
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 1 and "ended by SIGKILL" in errors
    assert states_of_runs(began) == [StateType.RUNNING]
    (tmp_path / "hold").unlink()
    second = start()
    _, errors = second.communicate(timeout=400)
    assert second.returncode == 0, errors
    assert states_of_runs(began) == [StateType.CRASHED, StateType.COMPLETED]


def states_of_runs(since: datetime) -> list[StateType | None]:
    """Of the flow runs since then, the oldest first."""
    those = FlowRunFilter(start_time=FlowRunFilterStartTime.model_validate({"after_": since}))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=those, sort=FlowRunSort.START_TIME_ASC)
    return [run.state_type for run in runs]


def listening(processes: list[psutil.Process]) -> dict[str, set[str]]:
    """The addresses where processes take connections, by their names."""
    found: dict[str, set[str]] = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            sockets = process.net_connections("inet")
            if addresses := {taken.laddr.ip for taken in sockets if taken.status == psutil.CONN_LISTEN}:
                found.setdefault(process.name(), set()).update(addresses)
    return found


@pytest.fixture
def doomed_prefect(prefect_server: str, tmp_path: Path) -> Iterator[SubprocessASGIServer]:
    """A server as Prefect embeds it, with a copy of the session's database: a new one would take half a minute."""
    copy = tmp_path / "prefect.db"
    there = str(get_current_settings().server.database.connection_url.get_secret_value())
    with closing(sqlite3.connect(there.partition(":///")[2])) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    server = SubprocessASGIServer(port=support.free_ports(1))
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{copy}"}):
        server.start(timeout=400)
    yield server
    server.stop()


@pytest.mark.long
def test_a_prefect_server_that_is_killed_half_way_costs_nothing(
    start: Start, ray_cluster: str, faulty: str, doomed_prefect: SubprocessASGIServer, tmp_path: Path
) -> None:
    api = {"PREFECT_API_URL": doomed_prefect.api_url, "PREFECT_CLIENT_MAX_RETRIES": "0"}  # given up sooner
    driver = start(RAY_ADDRESS=ray_cluster, **api)
    wait_for_commits(tmp_path / "dst", driver, 2)
    assert set().union(*listening([psutil.Process(doomed_prefect.server_process.pid)]).values()) == {"127.0.0.1"}
    doomed_prefect.server_process.kill()
    (tmp_path / "hold").unlink()
    output, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    assert "16 rows in = 16 written (16 restored, 0 kept as they were) + 0 rejected" in output
    support.assert_whole(tmp_path / "dst", ROWS)
    assert support.restored_images(tmp_path / "dst") == undisturbed(tmp_path)


@pytest.mark.long
def test_a_driver_that_is_terminated_says_so_leaves_nothing_running_and_can_go_on(
    start: Start, faulty: str, tmp_path: Path
) -> None:
    process = start()
    wait_for_commits(tmp_path / "dst", process, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    addresses = listening(children)
    assert {"gcs_server", "raylet"} <= set(addresses) and len(addresses) >= 4, addresses  # and workers, and a driver
    assert set().union(*addresses.values()) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, addresses
    began = time.monotonic()
    process.terminate()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 40
    assert "interrupted" in errors and "what is done is kept" in errors and "Traceback" not in errors and not output
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert not (tmp_path / "dst" / "run.json").exists()
    (tmp_path / "hold").unlink()
    restore_without_prefect(support.make_run(tmp_path, faulty, options=options(tmp_path), shard_rows=2))
    support.assert_whole(tmp_path / "dst", ROWS)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ray", "local"])
def test_with_the_defaults_ctrl_c_on_a_terminal_ends_all_that_the_command_started(
    engine: str, start: Start, plugin_path: str, tmp_path: Path
) -> None:
    """Prefect's server is the embedded one: the one thing that every other test here has of its own."""
    settings = f"{{method: faulty, options: {{seconds: 0.5}}, shard_rows: 2, gpus_per_actor: 0, engine: {engine}}}"
    (tmp_path / "run.yaml").write_text(settings)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        left_out = ("PREFECT_API_URL", "RAY_ADDRESS")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        command = [*support.BFR, "restore", "src", "dst", "--config", "run.yaml"]
        os.execve(command[0], command, environment | {"PYTHONPATH": plugin_path})
    said: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(terminal, said), daemon=True)
    reader.start()
    deadline = time.monotonic() + 400
    while not list((tmp_path / "dst").glob("commits/*.json")):
        assert time.monotonic() < deadline, b"".join(said)
        time.sleep(0.05)
    processes = psutil.Process(pid).children(recursive=True)
    assert any("embedded_server" in " ".join(process.cmdline()) for process in processes)
    began = time.monotonic()
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert time.monotonic() - began < 40
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    reader.join(60)
    text = b"".join(said).decode()
    assert "stopping..." in text and "Prefect failed" not in text and "Traceback" not in text


def read_all(terminal: int, said: list[bytes]) -> None:
    with suppress(OSError):  # closed by the last that had it open
        while part := os.read(terminal, 1024):
            said.append(part)


@pytest.mark.long
def test_a_method_that_never_ends_in_a_thread_of_the_driver_is_left_behind(start: Start, tmp_path: Path) -> None:
    rows = [row | {"id": "spins" if i == 6 else f"row-{i}"} for i, row in enumerate(support.make_rows(ROWS))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    (tmp_path / "run.yaml").write_text("{method: faulty, shard_rows: 2, engine: local}")
    process = start()
    wait_for_commits(tmp_path / "dst", process, 2)
    time.sleep(2)  # two more shards at most, then all hangs
    began = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 40
    assert "interrupted" in errors and "what is done is kept" in errors and "Traceback" not in errors


@pytest.mark.long
def test_a_spot_machine_that_is_taken_away_ends_the_command_as_a_signal_does(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{method: faulty, options: {seconds: 2}, shard_rows: 2, engine: local}")
    with metadata_server() as metadata:
        process = start(BFR_SPOT="aws", **metadata.environment)
        wait_for_commits(tmp_path / "dst", process, 1)
        metadata.taken = True
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"this machine is about to be taken away: {ACTION}" in errors
    assert "interrupted" in errors and "what is done is kept" in errors and "Traceback" not in errors
