"""A node with other code, and one without any, in a real cluster: refused by name, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray._private.node import Node
from ray._private.parameter import RayParams

from bfr_models.errors import BfrError
from tasks.config.code import running_code, this_process
from tasks.config.resolve import resolve_run
from tasks.engine.same_code import check_introduction, introduce
from tasks.restore_shards import restore_shards, worker_pool
from tasks.worker.job import make_job
from tests import support
from tests.other_code import other_version, redirect


@ray.remote(num_cpus=8)
class Squatter:
    """Leaves no room on the first node for as long as it lives."""

    def here(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.fixture
def node_with(ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Starts a node whose processes find this program in one folder alone; the first node has no room left."""
    nodes = []

    def start(folder: Path) -> None:
        monkeypatch.setenv("PYTHONPATH", redirect(tmp_path / "site", folder))
        nodes.append(Node(
            RayParams(gcs_address=ray_cluster, num_cpus=2, num_gpus=0, object_store_memory=80 * 2**20,
                      node_manager_port=0, min_worker_port=0, max_worker_port=0, dashboard_agent_listen_port=0,
                      include_log_monitor=False),
            head=False, shutdown_at_exit=False, spawn_reaper=False,
        ))  # fmt: skip

    squatter = Squatter.remote()
    ray.get(squatter.here.remote())
    yield start
    ray.kill(squatter)
    for node in nodes:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def restore(folder: Path) -> None:
    support.write_parquet(folder / "src" / "a.parquet", support.make_rows(4))
    run = support.make_run(folder, engine="ray", actors=1, gpus_per_actor=0, recogniser="none")
    plan = support.plan_run(run)
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, list(plan.todo), lambda _: None)


@pytest.mark.long
def test_a_node_with_other_code_is_refused_by_name(node_with: Callable[[Path], None], tmp_path: Path) -> None:
    node_with(other_version(tmp_path / "other"))
    here = this_process()
    with pytest.raises(BfrError) as refused:
        restore(tmp_path)
    message = str(refused.value)
    assert f"on node {here['host']} ({here['address']})" in message
    assert f"bfr: expected {running_code()['bfr']}, found " in message and "install the same version" in message
    assert not list((tmp_path / "dst").glob("data/*"))


@pytest.mark.long
def test_a_node_without_this_program_is_told_to_install_it(node_with: Callable[[Path], None], tmp_path: Path) -> None:
    node_with(tmp_path / "nothing")
    with pytest.raises(BfrError, match=r"expected bfr-pipeline on .*found none.*; install the same version") as refused:
        restore(tmp_path)
    assert "memory" not in str(refused.value) and f"on node {this_process()['host']} (" in str(refused.value)


def test_a_worker_of_a_version_that_does_not_say_its_code_is_refused(tmp_path: Path) -> None:
    job = make_job(resolve_run(support.make_run(tmp_path)), "cpu", None)
    said = introduce(job)
    assert check_introduction(job, said) == f"node {said['host']} ({said['address']})"
    with pytest.raises(BfrError, match=r"numpy: expected .*, found 0"):
        check_introduction(job, said | {"code": said["code"] | {"numpy": "0"}})
    with pytest.raises(BfrError, match="an older version"):
        check_introduction(job, 4711)
