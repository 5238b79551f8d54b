"""Runs on clusters whose nodes come and go: Ray's own autoscaler, nodes that join late, and nodes that are drained."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private.node import Node
from ray._private.parameter import RayParams

from tasks.config.resolve import resolve_run
from tasks.engine import ray_pool
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.commits import Record
from tests import support
from tests.autoscaler import PATIENCE, autoscaling_cluster, figures_of, wait_until
from tests.support import BFR, free_ports

pytestmark = pytest.mark.long
PREEMPTION = 2  # of Ray's DrainNodeReason


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """One whose name leaves room for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="bfr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.minutes
def test_a_run_waits_for_nodes_that_do_not_exist_yet_uses_them_and_lets_them_go(
    short_folder: Path, tmp_path: Path, plugin_path: str
) -> None:
    """From no GPU to three nodes and back, by Ray's own autoscaler."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(48), group_rows=2)
    pids, port = tmp_path / "pids", free_ports(1)
    pids.mkdir()
    settings = {"options": {"seconds": 3.0, "pids": str(pids)}, "shard_rows": 2, "input": "faces",
                "device": "cuda", "min_actors": 3, "recogniser": "none", "lpips": "none", "fid": "none",
                "metrics_port": port}  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    with autoscaling_cluster(short_folder, 3, {"PYTHONPATH": plugin_path}) as cluster:
        assert cluster.nodes == 0
        command = [*BFR, "restore", str(tmp_path / "src"), str(tmp_path / "dst"), "--method", "faulty",
                   "--config", str(tmp_path / "run.yaml")]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": plugin_path, "RAY_ADDRESS": cluster.address}
        environment |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
        log = (tmp_path / "log").open("w")
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: figures_of(port).get("bfr_workers_wanted") == 3 or run.poll() is not None)
            up = wait_until(lambda: figures_of(port).get("bfr_workers_ready") == 3 or run.poll() is not None)
            assert run.poll() is None and cluster.nodes == 3
            down = wait_until(lambda: cluster.nodes == 0 or run.poll() not in {None, 0})
            code = run.wait(PATIENCE)
        finally:
            run.kill()
    said = (tmp_path / "log").read_text()
    assert code == 0, said
    assert "loading faulty only in 3 or more workers on GPUs" in said and "3 of 3 workers" in said
    assert len(list(pids.iterdir())) == 3
    support.assert_whole(tmp_path / "dst", 48)
    print(f"three workers {up:.1f} s after they were asked for, no node {down:.1f} s later")


@pytest.fixture
def joined(ray_cluster: str, plugin_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Node]]:
    """The nodes that a test has started."""
    monkeypatch.setenv("PYTHONPATH", plugin_path)
    nodes: list[Node] = []
    yield nodes
    for node in nodes:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def join(address: str) -> Node:
    """Another node of the cluster, on this machine, with the same CPUs."""
    return Node(
        RayParams(gcs_address=address, num_cpus=8, num_gpus=0, object_store_memory=80 * 2**20, node_manager_port=0,
                  min_worker_port=0, max_worker_port=0, dashboard_agent_listen_port=0, include_log_monitor=False),
        head=False, shutdown_at_exit=False, spawn_reaper=False,
    )  # fmt: skip


def test_a_node_that_joins_is_used_and_one_that_is_about_to_go_is_left(
    ray_cluster: str, joined: list[Node], tmp_path: Path, faulty: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By default there is a worker per node: one, then two, then one again. Then it is stopped, with shards left."""
    monkeypatch.setattr(ray_pool, "RESIZE_SECONDS", 0.3)
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4) * 120)
    pids = tmp_path / "pids"
    pids.mkdir()
    run = support.make_run(tmp_path, "faulty", engine="ray", options={"pids": str(pids), "seconds": 1.0})
    crews, drained = list[tuple[int, int]](), list[str]()
    stop = threading.Event()
    with worker_pool(resolve_run(run)) as pool:

        def watch(record: Record) -> None:
            crews.append(pool.workers())
            if len(crews) == 2:
                threading.Thread(target=lambda: joined.append(join(ray_cluster)), daemon=True).start()
            elif joined and crews[-1] == (2, 2) and not drained:
                drained.append(joined[0].node_id)
                drain(ray_cluster, drained[0])
            elif crews[-1] == (1, 1) and (2, 2) in crews:
                stop.set()

        restore_shards(pool, list(support.plan_run(run).todo), watch, stop)
    assert crews[0] == (1, 1) and (2, 2) in crews and crews[-1] == (1, 1)
    assert len(list(pids.iterdir())) == 2
    assert "died" not in caplog.text, "shards in hand are finished before the worker goes"


def drain(address: str, node_id: str) -> None:
    """Announces the end of a node, as a cloud does of a spot machine."""
    deadline = int(1000 * (time.time() + 600))
    accepted, why = ray._raylet.GcsClient(address=address).drain_node(node_id, PREEMPTION, "spot", deadline)
    assert accepted, why
