"""Deployments as operators run them: a Prefect server on PostgreSQL, process workers, Ray, a clock, and a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import httpx
import psutil
import pytest

from tasks._storage import Store
from tests import support

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

BIN = Path(sys.executable).parent
SECRET = "bfr-test-secret"
PLAIN = ("--set", "recogniser=none", "--set", "actors=1", "--set", "gpus_per_actor=0", "--set", "shard_rows=4")
Found = TypeVar("Found")


def wait(look: Callable[[], Found | None], seconds: float, what: str) -> Found:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what} in {seconds:.0f} s"
        time.sleep(0.3)
    return found


@dataclass
class House:
    """A Prefect server, and the processes that use it."""

    folder: Path
    environment: dict[str, str]
    url: str
    started: list[psutil.Popen] = field(default_factory=list)

    def start(self, *command: str) -> psutil.Popen:
        name = command[0] if len(command) == 1 else "-".join(command[:2])
        with (self.folder / f"{name}.log").open("a") as log:
            process = psutil.Popen([BIN / "prefect", *command], env=self.environment, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def work(self, pool: str) -> psutil.Popen:
        return self.start("worker", "start", "--pool", pool, "--type", "process", "--name", uuid.uuid4().hex)

    def bfr(self, *arguments: object, **environment: str) -> Any:
        command = [BIN / "bfr", *map(str, arguments), "--json"]
        environment = self.environment | environment
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", timeout=60).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60).raise_for_status().json()

    def run_now(self, deployment: str) -> str:
        """Starts a run of a deployment; its id."""
        wanted = {"type": "SCHEDULED", "name": "Scheduled"}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", {"state": wanted})["id"])

    def ended(self, flow_run: str, seconds: float) -> dict[str, Any]:
        """The state in which a run ends."""

        def look() -> dict[str, Any] | None:
            state: dict[str, Any] = self.get(f"/flow_runs/{flow_run}")["state"]
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return wait(look, seconds, "end of the run")

    def is_up(self) -> bool:
        assert self.started[0].poll() is None, "the server has ended"
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False


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


def kill(process: psutil.Popen) -> None:
    """As when a machine goes: a process and all that it started."""
    if process.poll() is None:
        for child in [*process.children(recursive=True), process]:
            child.kill()
    process.wait()


@pytest.fixture
def bucket(ceph: tuple[str, int], monkeypatch: pytest.MonkeyPatch, house: House) -> str:
    """The URL of a new bucket, whose keys Prefect keeps in the block `ceph`; its processes have them from there."""
    endpoint = f"http://{ceph[0]}:{ceph[1]}"
    keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "bfr-test", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    made = f"StoreCredentials(access_key_id='bfr-test', secret_access_key='{SECRET}', endpoint_url='{endpoint}')"
    code = f"from flows._credentials import StoreCredentials; {made}.save('ceph', overwrite=True)"
    subprocess.run([sys.executable, "-c", code], env=house.environment, check=True)
    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


@pytest.mark.s3
@pytest.mark.long
def test_a_schedule_restores_just_what_is_new_and_other_weights_make_a_generation(
    house: House, bucket: str, tmp_path: Path
) -> None:
    source, destination, store = f"{bucket}/inbox", f"{bucket}/restored", Store(f"{bucket}/restored")
    worker = house.work("bfr")
    command = ("deploy", source, destination, "--interval", 15, "--credentials", "ceph", *PLAIN, "--method")

    def drop(name: str, rows: int) -> None:
        path = support.write(tmp_path / name, support.rows(rows))
        fsspec.filesystem("s3", skip_instance_cache=True).put_file(str(path), f"{source[5:]}/{name}")

    def generation() -> str:
        return str(json.loads(store.read("current.json"))["generation"])

    def restored(name: str, rows: int) -> bool:
        run = f"generations/{name}/run.json"
        return store.exists(run) and json.loads(store.read(run))["totals"]["restored"] == rows

    def files() -> dict[str, str]:
        found = store.versions("generations")
        return {f.path: f.version for f in found if f.path.split("/")[2] in ("data", "commits")}

    drop("0.parquet", 3)
    deployment = house.bfr(*command, "passthrough")
    wait(lambda: store.exists("current.json") and generation() != "None", 240, "first scheduled run")
    first = generation()
    assert first.startswith("0001-passthrough-") and restored(first, 3)
    total, before = 3, files()
    assert len(before) == 2  # a shard's data and its commit
    for name, rows in (("1.parquet", 2), ("2.parquet", 4)):
        drop(name, rows)
        total += rows
        wait(partial(restored, first, total), 240, f"scheduled run that restores {name}")
        assert before.items() <= files().items(), "what was restored was restored again"
        assert len(files()) == len(before) + 2
        before = files()

    mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    runs = house.post("/flow_runs/filter", mine)
    worked = [run for run in runs if run["state_name"] == "Completed"]
    assert len(worked) >= 2 and all(run["auto_scheduled"] for run in runs)  # the third may still be on its last lines
    assert {run["state_name"] for run in runs} <= {"Completed", "Running", "Pending", "Scheduled", "Late", "Cancelled"}
    one = {"flow_runs": {"id": {"any_": [run["id"] for run in worked]}}}
    artifacts = house.post("/artifacts/filter", one)
    assert {artifact["type"] for artifact in artifacts} == {"progress", "table", "markdown"}
    assert "restored by passthrough" in str(artifacts)
    for what in ("/deployments/filter", "/flow_runs/filter", "/logs/filter", "/artifacts/filter", "/events/filter"):
        assert SECRET not in json.dumps(house.post(what, {})), what

    house.bfr(*command, "estimator")
    wait(lambda: generation() != first, 240, "second generation")
    second = generation()
    assert second.startswith("0002-estimator-") and restored(second, total)
    assert before.items() <= files().items(), "the generation before it stays as it was"
    assert store.exists(f"comparisons/{first}..{second}.html")

    keys = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert house.bfr("generations", "rollback", destination, **keys)["current"] == first
    house.ended(house.run_now(deployment["id"]), 240)
    assert generation() == first, "the schedule leaves it so"
    assert house.bfr("verify", f"{destination}/generations/{first}", **keys)["ok"]
    httpx.delete(f"{house.url}/deployments/{deployment['id']}").raise_for_status()
    kill(worker)


@dataclass
class Slow:
    """A deployment whose runs take a while, and the processes that its actors were."""

    id: str
    destination: Path
    pids: Path

    def at_work(self, house: House) -> str:
        """The id of a run that is half-way."""
        flow_run, done = house.run_now(self.id), len(self.commits())
        wait(lambda: len(self.commits()) > done, 240, "first commit")
        return flow_run

    def commits(self) -> list[Path]:
        return list(self.destination.glob("generations/*/commits/*.json"))


@pytest.fixture
def slow(house: House, tmp_path: Path) -> Slow:
    support.write(tmp_path / "src" / "a.parquet", support.rows(160))
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


@pytest.mark.long
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
