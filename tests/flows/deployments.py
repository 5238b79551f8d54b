"""A Prefect server with its workers, and deployments on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import httpx
import psutil
import pyarrow.parquet as pq

from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import read_checkpoint, save_weights
from tasks.storage.store import Store
from tests import support
from tests.faulty_methods import WEIGHTS

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


def kill(process: psutil.Popen) -> None:
    """Kills a process and all its children, as the loss of a machine does."""
    if process.poll() is None:
        for child in [*process.children(recursive=True), process]:
            child.kill()
    process.wait()


@dataclass
class Archive:
    """A deployment that fills one folder of a bucket from another, with ways to look at it."""

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
        """The ids in each data file of a generation, by path and version: a rewritten file is another."""
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


def train(house: House, number: int) -> None:
    """Swaps in other weights under the same names, all at once."""
    shipped = require_weight("difface-face128-estimator_unet")
    folder, link = house.folder / f"weights-{number}", house.folder / "weights"
    parameters = {name: value * (1 + number / 1000) for name, value in read_checkpoint(shipped).items()}
    save_weights(parameters, read_card(shipped), folder / f"{WEIGHTS}.safetensors")
    link.with_suffix(".new").symlink_to(folder)
    link.with_suffix(".new").replace(link)


@dataclass
class Slow:
    """A deployment whose runs take a while, and the process ids of its actors."""

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
