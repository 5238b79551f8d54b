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
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import read_checkpoint, save_weights
from tasks.storage.store import Store
from tests import support
from tests.faulty_methods import WEIGHTS

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
    code = f"from flows.orchestration.credentials import StoreCredentials; {made}.save('ceph', overwrite=True)"
    subprocess.run([sys.executable, "-c", code], env=house.environment, check=True)
    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


@dataclass
class Archive:
    """A deployment that fills one folder of a bucket from another, and what is to be seen of it."""

    house: House
    bucket: str
    folder: Path  # where files are made that are then dropped into the bucket
    command: tuple[object, ...]
    deployment: str = ""

    @property
    def destination(self) -> str:
        return f"{self.bucket}/restored"

    @property
    def store(self) -> Store:
        return Store(self.destination)

    def deploy(self) -> None:
        places = (f"{self.bucket}/inbox", self.destination)
        self.deployment = str(self.house.bfr("deploy", *places, *self.command)["id"])

    def drop(self, name: str, rows: int) -> set[str]:
        """A new file for the inbox; the ids of its rows."""
        path = support.write_parquet(self.folder / name, support.make_rows(rows))
        fsspec.filesystem("s3", skip_instance_cache=True).put_file(str(path), f"{self.bucket[5:]}/inbox/{name}")
        return {f"{name}#{row}" for row in range(rows)}

    def generation(self) -> str:
        return str(json.loads(self.store.read("current.json"))["generation"])

    def ids(self, generation: str) -> dict[str, set[str]]:
        """The ids in each data file of a generation, by path and version: a file that is written again is another."""
        found = self.store.versions(f"generations/{generation}/data")
        return {
            f"{file.path} {file.version}": set(pq.read_table(self.store.open_input(file.path))["id"].to_pylist())
            for file in found
        }

    def runs(self) -> list[dict[str, Any]]:
        mine = {"deployments": {"id": {"any_": [self.deployment]}}}
        found: list[dict[str, Any]] = self.house.post("/flow_runs/filter", mine)
        return found

    def worked(self) -> dict[str, str]:
        """Runs that restored something, by id, and their states: they alone leave a summary."""
        states = {run["id"]: run["state_type"] for run in self.runs() if run["state_type"] != "SCHEDULED"}
        asked = {"flow_runs": {"id": {"any_": list(states)}}, "artifacts": {"type": {"any_": ["markdown"]}}}
        made = {artifact["flow_run_id"] for artifact in self.house.post("/artifacts/filter", asked)}
        return {run: state for run, state in states.items() if run in made}

    def wait_for_work(self, count: int, what: str) -> None:
        """Until that many runs have restored something, and the last of them has ended well."""
        wait(lambda: list(self.worked().values()) == ["COMPLETED"] * count, 300, f"completed run that restores {what}")


@pytest.fixture
def archive(house: House, bucket: str, tmp_path: Path) -> Iterator[Archive]:
    minutely = ("--interval", 60, "--credentials", "ceph")
    made = Archive(house, bucket, tmp_path, (*minutely, "--method", "faulty", "--preset", "trained", *PLAIN))
    worker = house.work("bfr")
    yield made
    if made.deployment:
        httpx.delete(f"{house.url}/deployments/{made.deployment}").raise_for_status()
    kill(worker)


def train(house: House, number: int) -> None:
    """Puts other weights of one name where the house has its own, all at once."""
    shipped = require_weight("difface-face128-estimator")
    folder, link = house.folder / f"weights-{number}", house.folder / "weights"
    parameters = {name: value * (1 + number / 1000) for name, value in read_checkpoint(shipped).items()}
    save_weights(parameters, read_card(shipped), folder / f"{WEIGHTS}.safetensors")
    link.with_suffix(".new").symlink_to(folder)
    link.with_suffix(".new").replace(link)


@pytest.mark.s3
@pytest.mark.schedule
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


@pytest.mark.schedule
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
