"""Real Ray actors, some of which are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.exceptions import ActorDiedError

from bfr_models.errors import BfrError, UsageError
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.engine import ray_actor, ray_pool
from tasks.engine.placement import waiting_for
from tasks.engine.ray_actor import Actor
from tasks.engine.ray_cluster import connect_ray
from tasks.engine.scaling import Share
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.commits import Record
from tasks.runs.shards import Shard
from tasks.storage import waits
from tasks.vacuum_run import vacuum_run
from tasks.worker.job import Order
from tests import support

pytestmark = pytest.mark.usefixtures("ray_cluster", "faulty")


def ray_run(folder: Path, **settings: Any) -> RestoreRun:
    return support.make_run(folder, "faulty", engine="ray", actors=1, gpus_per_actor=0, **settings)


def restore(run: RestoreRun, on_done: Callable[[Record], None]) -> None:
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, list(support.plan_run(run).todo), on_done)


@pytest.fixture
def second_node(ray_cluster: str, plugin_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Another node of the cluster, on this machine, with room for two workers; the first has none left."""
    monkeypatch.setenv("PYTHONPATH", plugin_path)
    node = Node(
        RayParams(gcs_address=ray_cluster, num_cpus=2, num_gpus=0, object_store_memory=80 * 2**20, node_manager_port=0,
                  min_worker_port=0, max_worker_port=0, dashboard_agent_listen_port=0, include_log_monitor=False),
        head=False, shutdown_at_exit=False, spawn_reaper=False,
    )  # fmt: skip
    yield node
    node.kill_all_processes(check_alive=False, allow_graceful=False)


@ray.remote(num_cpus=8)
class Squatter:
    """Leaves no room on the first node for as long as it lives."""

    def here(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.mark.long
def test_a_node_that_is_killed_half_way_takes_its_workers_and_loses_nothing(
    second_node: Node, tmp_path: Path, faulty: str
) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(24))
    pids = tmp_path / "pids"
    pids.mkdir()
    squatter = Squatter.remote()
    assert ray.get(squatter.here.remote()) != second_node.node_id
    done: list[str] = []

    def kill_after_two(record: Record) -> None:
        done.append(record["shard"])
        if len(done) == 2:
            second_node.kill_raylet(check_alive=False)
            ray.kill(squatter)

    run = ray_run(tmp_path, options={"pids": str(pids), "seconds": 0.2}).model_copy(update={"actors": 2})
    restore(run, kill_after_two)
    # The first two, and at least one in their place: the second replacement may come when nothing is left to do.
    assert len(list(pids.iterdir())) >= 3 and sorted(done) == sorted(set(done)) and len(done) == 6
    assert support.finished_run(run)["totals"]["restored"] == 24
    assert_whole_but_for_leftovers(run)
    assert support.restored_images(tmp_path / "dst") == undisturbed(tmp_path)


def assert_whole_but_for_leftovers(run: RestoreRun) -> None:
    """What dies between a data file and its commit leaves the file, which vacuum removes when it is old."""
    for path in Path(run.destination, "data").iterdir():
        os.utime(path, (0, 0))
    vacuum_run(run.destination)
    support.assert_whole(Path(run.destination), 24)


def undisturbed(folder: Path) -> dict[str, bytes]:
    """What a run over `src` gives on threads of this process, where nothing is killed."""
    support.finished_run(support.make_run(folder, "faulty", destination=str(folder / "undisturbed")))
    return support.restored_images(folder / "undisturbed")


def test_a_worker_that_is_killed_half_way_is_replaced_and_its_shards_are_done_once(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(24))
    pids = tmp_path / "pids"
    pids.mkdir()
    done: list[str] = []

    def kill_after_three(record: Record) -> None:
        done.append(record["shard"])
        if len(done) == 3:
            (pid,) = pids.iterdir()
            os.kill(int(pid.name), signal.SIGKILL)

    run = ray_run(tmp_path, options={"pids": str(pids), "seconds": 0.1})
    restore(run, kill_after_three)
    assert len(list(pids.iterdir())) == 2
    assert sorted(done) == sorted(set(done)) and len(done) == 6
    record = support.finished_run(run)
    assert record["totals"]["restored"] == 24
    assert_whole_but_for_leftovers(run)
    assert support.restored_images(tmp_path / "dst") == undisturbed(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("fault", "reason"), [("kills", "the worker died"), ("hangs", "no result in 5 s")])
def test_a_row_that_ends_every_worker_is_rejected_and_all_others_are_restored(
    fault: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "MIN_TRIAL_DEADLINE", 4.0)  # on a busy machine a good row takes more than one
    rows = [row | {"id": fault if i == 1 else f"row-{i}"} for i, row in enumerate(support.make_rows(6))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    run = ray_run(tmp_path, shard_rows=2, shard_timeout=5.0 if fault == "hangs" else None)
    record = support.finished_run(run)
    assert record["rejects"] == {"worker_killed": 1} and record["totals"]["restored"] == 5
    support.assert_whole(tmp_path / "dst", 6)
    (rejected,) = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert rejected["id"] == fault and "this row ended it 2 times" in rejected["detail"]
    assert reason in rejected["detail"] or "no result in 4 s" in rejected["detail"]
    assert rejected["image"]["bytes"] == rows[1]["image"]["bytes"]
    rows[1]["id"] = "well"
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    others = {name: picture for name, picture in undisturbed(tmp_path).items() if name != "well"}
    assert support.restored_images(tmp_path / "dst") == others


@pytest.mark.long
def test_a_first_shard_may_take_its_time_as_long_as_its_batches_get_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "FIRST_DEADLINE", {"cpu": 9.0})
    monkeypatch.setattr(ray_actor, "PULSE_SECONDS", 0.5)
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8), group_rows=8)
    pids = tmp_path / "pids"
    pids.mkdir()
    run = ray_run(tmp_path, shard_rows=8, batch_size=1, options={"seconds": 2.0, "pids": str(pids)})
    assert support.finished_run(run)["totals"]["restored"] == 8
    assert len(list(pids.iterdir())) == 1, "its worker was killed"


@pytest.mark.long
def test_a_first_shard_that_hangs_in_a_batch_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "FIRST_DEADLINE", {"cpu": 3.0})
    monkeypatch.setattr(ray_pool, "MIN_TRIAL_DEADLINE", 1.0)
    support.write_parquet(tmp_path / "src" / "a.parquet", [row | {"id": "hangs"} for row in support.make_rows(1)])
    assert support.finished_run(ray_run(tmp_path))["rejects"] == {"worker_killed": 1}


def test_a_method_that_does_not_load_is_a_clear_error(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    message = "a worker could not load faulty on cpu: RuntimeError: no kernel for this card"
    with pytest.raises(BfrError, match=message):
        restore(ray_run(tmp_path, options={"load_error": "no kernel for this card"}), lambda _: None)


def test_workers_that_cannot_be_placed_are_said_and_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    monkeypatch.setattr(waits, "LINE_SECONDS", 0.0)
    run = ray_run(tmp_path, start_timeout=2.0)
    wanted = r"expected a worker to be ready within 2 s, found none .*waiting for 7 GPUs; the cluster has 0"
    with caplog.at_level("WARNING"), pytest.raises(BfrError, match=wanted):
        restore(run.model_copy(update={"gpus_per_actor": 7.0}), lambda _: None)
    lines = [record.message for record in caplog.records if record.name == waits.LOGGER]
    assert lines[0].startswith("0 of 1 workers placed: waiting for 7 GPUs; the cluster has 0 (for at most ")


@pytest.mark.parametrize(
    ("gpus", "placed", "ready", "words"),
    [
        (1, 0, 0, "0 of 2 workers placed: waiting for 1 GPU for each of 2 workers; the cluster has 1"),
        (1, 1, 0, "1 of 2 workers placed: waiting for 1 GPU; the cluster has 1"),
        (0, 1, 1, "1 of 2 workers placed: waiting for 1 CPU; the cluster has 4"),
        (0, 2, 1, "2 of 2 workers placed, 1 ready: waiting for 1 to load the method"),
    ],
)
def test_a_wait_for_workers_says_what_for(gpus: float, placed: int, ready: int, words: str) -> None:
    assert waiting_for(Share(gpus), 2, placed, ready, {"CPU": 4.0, "GPU": 1.0}) == words


def test_a_worker_that_is_replaced_late_in_a_run_has_its_own_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ray_pool.RayPool.__new__(ray_pool.RayPool)
    pool._share, pool._start_timeout, pool._waits = Share(), 600.0, waits.WaitLines()
    pool._actors = [Actor(None, placing="ref")]
    pool._say_what_it_waits_for()
    pool._actors[0].created -= 601
    monkeypatch.setattr(ray_pool.ray, "cluster_resources", dict)
    with pytest.raises(BfrError, match="expected a worker to be ready"):
        pool._say_what_it_waits_for()


def test_workers_that_die_over_suspects_say_nothing_about_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ray_pool.RayPool.__new__(ray_pool.RayPool)
    pool._losses, pool._wanted, pool._actors, pool._forgotten = 0, 1, [], set()
    monkeypatch.setattr(ray_pool, "MAX_LOSSES_IN_A_ROW", 3)
    monkeypatch.setattr(ray_pool.ray, "get", lambda _: (_ for _ in ()).throw(ActorDiedError()))
    shard = Shard("0", "/a/x.parquet", "x.parquet", "1", 0, 1, 0, 10)

    def lose_a_worker(is_suspect: bool) -> None:
        actor = Actor(None, placing=None)
        actor.in_hand["ref"] = (Order(shard, is_suspect=is_suspect), 0.0)
        assert pool._collect(actor, "ref").worker_lost

    for is_suspect in (True, True, True, True, False, False, True):
        lose_a_worker(is_suspect)
    with pytest.raises(BfrError, match="3 workers died in a row with nothing done"):
        lose_a_worker(is_suspect=False)


def test_a_worker_that_is_let_go_leaves_no_forgotten_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later order may get the id of one of them: its worker would count as idle."""
    killed = list[Any]()
    monkeypatch.setattr(ray_pool.ray, "kill", killed.append)
    pool = ray_pool.RayPool.__new__(ray_pool.RayPool)
    actor, order = Actor("handle", placing=None), Order(Shard("0", "/a/x.parquet", "x.parquet", "1", 0, 1, 0, 10))
    actor.in_hand["ref"] = (order, 0.0)
    pool._actors, pool._forgotten = [actor], set()
    pool._let_go(1)
    assert killed == [], "it has an order in hand"
    pool.forget(order)
    pool._let_go(1)
    assert killed == ["handle"] and pool._actors == [] and pool._forgotten == set()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_said_in_seconds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UsageError, match=r"expected a Ray cluster at RAY_ADDRESS=.*127\.0\.0\.1:9"):
        connect_ray()
