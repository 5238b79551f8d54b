"""Deployments as operators run them: a Prefect server on PostgreSQL, process workers, Ray, a clock, and a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import httpx
import psutil
import pytest

from tests import support
from tests.flows.deployments import PLAIN, SECRET, Archive, House, Slow, kill, train, wait

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def house(postgres: str, plugin_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, port = tmp_path_factory.mktemp("prefect"), support.free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_", "RAY_ADDRESS"))}
    environment = kept | {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONPATH": plugin_path,
        "BFR_WEIGHTS": str(folder / "weights"),
        "OMP_NUM_THREADS": "1",
    }
    house = House(folder, environment, url)
    try:
        house.start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        wait(house.is_up, 180, "Prefect server")
        yield house
    finally:
        for process in reversed(house.started):
            kill(process)


@pytest.fixture
def bucket(ceph: tuple[str, int], monkeypatch: pytest.MonkeyPatch, house: House) -> str:
    """The URL of a new bucket, whose keys are in the Prefect block `ceph`, where flow runs get them."""
    endpoint = f"http://{ceph[0]}:{ceph[1]}"
    keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "bfr-test", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    made = f"StoreCredentials(access_key_id='bfr-test', secret_access_key='{SECRET}', endpoint_url='{endpoint}')"
    code = f"from flows.orchestration.credentials import StoreCredentials; {made}.save('ceph', overwrite=True)"
    subprocess.run([sys.executable, "-c", code], env=house.environment, check=True)
    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def archive(house: House, bucket: str, tmp_path: Path) -> Iterator[Archive]:
    minutely = ("--interval", 60, "--credentials", "ceph")
    made = Archive(house, bucket, tmp_path, (*minutely, "--method", "faulty", "--preset", "trained", *PLAIN))
    worker = house.work("bfr")
    yield made
    if made.deployment:
        httpx.delete(f"{house.url}/deployments/{made.deployment}").raise_for_status()
    kill(worker)


@pytest.mark.s3
@pytest.mark.minutes
def test_a_schedule_restores_just_what_is_new_and_other_weights_make_a_generation(archive: Archive) -> None:
    house = archive.house
    train(house, 1)
    wanted = archive.drop("0.parquet", 3)
    archive.deploy()
    archive.wait_for_work(1, "the first file")
    first = archive.generation()
    assert first.startswith("0001-faulty-")
    before = archive.ids(first)
    assert set().union(*before.values()) == wanted
    for number, rows in ((1, 2), (2, 4)):
        new = archive.drop(f"{number}.parquet", rows)
        archive.wait_for_work(number + 1, f"{number}.parquet")
        after = archive.ids(first)
        assert before.items() <= after.items(), "what was restored was restored again"
        assert set().union(*(ids for path, ids in after.items() if path not in before)) == new
        wanted, before = wanted | new, after
    worked = archive.worked()
    assert len(worked) == 3 and all(run["auto_scheduled"] for run in archive.runs() if run["id"] in worked)

    artifacts = house.post("/artifacts/filter", {"flow_runs": {"id": {"any_": list(worked)}}})
    assert {artifact["type"] for artifact in artifacts} == {"progress", "table", "markdown"}
    assert "restored by faulty" in str(artifacts)
    for what in ("/deployments/filter", "/flow_runs/filter", "/logs/filter", "/artifacts/filter", "/events/filter"):
        assert SECRET not in json.dumps(house.post(what, {})), what

    wait(lambda: "RUNNING" not in {run["state_type"] for run in archive.runs()}, 120, "pause between two runs")
    train(house, 2)
    archive.wait_for_work(4, "all of it with other weights")
    second = archive.generation()
    assert second.startswith("0002-faulty-") and second[5:] != first[5:]
    restored = archive.ids(second)
    assert set().union(*restored.values()) == wanted
    assert archive.ids(first) == before, "the generation before it stays as it was"
    assert archive.store.exists(f"comparisons/{first}..{second}.html")

    keys = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert house.bfr("generations", "rollback", archive.destination, **keys)["current"] == first
    new = archive.drop("3.parquet", 1)
    archive.wait_for_work(5, "a file after the rollback")
    assert archive.generation() == first, "the schedule leaves it so"
    assert set().union(*archive.ids(second).values()) == wanted | new
    for name in (first, second):
        assert house.bfr("verify", f"{archive.destination}/generations/{name}", **keys)["ok"]


@pytest.fixture
def slow(house: House, tmp_path: Path) -> Slow:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(160))
    (tmp_path / "pids").mkdir()
    options = ("--set", "options.seconds=0.5", "--set", f"options.pids={tmp_path / 'pids'}", "--set", "batch_size=4")
    command = ("--method", "faulty", "--interval", 86400, "--work-pool", tmp_path.name, *PLAIN, *options)
    made = house.bfr("deploy", tmp_path / "src", tmp_path / "dst", *command)
    return Slow(made["id"], tmp_path / "dst", tmp_path / "pids")


def test_cancellation_stops_the_actors_in_five_seconds_and_ends_as_cancelled(
    house: House, slow: Slow, tmp_path: Path
) -> None:
    worker = house.work(tmp_path.name)
    flow_run = slow.at_work(house)
    actors = [psutil.Process(int(path.name)) for path in slow.pids.iterdir()]
    assert actors
    began = time.monotonic()
    house.post(f"/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    _, alive = psutil.wait_procs(actors, timeout=30)
    seconds = time.monotonic() - began
    assert not alive and seconds < 5, f"{len(alive)} actors live after {seconds:.1f} s"
    assert house.ended(flow_run, 60)["type"] == "CANCELLED"
    kill(worker)


@pytest.mark.minutes
def test_a_run_whose_machine_is_gone_is_found_by_its_silence_and_the_next_goes_on(
    house: House, slow: Slow, tmp_path: Path
) -> None:
    worker = house.work(tmp_path.name)
    flow_run = slow.at_work(house)
    kill(worker)
    done = {path.name: path.stat().st_mtime_ns for path in slow.commits()}
    assert house.get(f"/flow_runs/{flow_run}")["state"]["type"] == "RUNNING"
    state = house.ended(flow_run, 240)
    assert (state["type"], state["message"]) == ("CRASHED", "no heartbeat in 90 s")
    worker = house.work(tmp_path.name)
    assert house.ended(house.run_now(slow.id), 300)["type"] == "COMPLETED"
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in slow.commits()}.items()
    (generation,) = (slow.destination / "generations").iterdir()
    support.assert_whole(generation, 160)
    kill(worker)
