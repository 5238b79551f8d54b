"""Faults that strike a run at random points, and the verdict on what it has written in the end."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from tasks.runs.commits import committed, files_of, read_commit
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tests import support
from tests.faults.fault_proxy import FaultProxy, never, some
from tests.other_code import other_version, redirect

ROWS, GROUP_ROWS = 32, 4
SHARDS = ROWS // GROUP_ROWS
POISON = 21  # the row that a misbehaving method misbehaves on
ZOMBIE_SECONDS = 2.0  # after a restart; commits until then are those of the actors before
Attack = Callable[["Nemesis", "subprocess.Popen[str]"], None]
Round = dict[str, Any]


@dataclass
class Nemesis:
    """Where a run lives, and what is needed to disturb it."""

    bucket: str
    proxy: FaultProxy
    environment: dict[str, str]
    cluster: Any
    scratch: Path
    rng: random.Random = field(default_factory=random.Random)
    node: Any = None
    prefect: Any = None
    rivals: list[subprocess.Popen[str]] = field(default_factory=list)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)  # all that were started
    destination: str = ""
    stores: dict[str, Any] = field(default_factory=dict)
    startup_seconds: float = 10.0  # a strike before the first commit comes within so long
    zombie_seconds: float = ZOMBIE_SECONDS

    def start(self, source: str, destination: str, **limits: int) -> subprocess.Popen[str]:
        settings = {"method": "faulty", "options": {"seconds": 0.5}, "shard_rows": GROUP_ROWS, "actors": 1}
        settings |= {"gpus_per_actor": 0, "shard_timeout": 20, "max_rejects": 1.0, "recogniser": "none"}
        (self.scratch / "run.json").write_text(json.dumps(settings))  # which is YAML, too
        command = [str(Path(sys.executable).with_name("bfr")), "restore", source, destination]
        command += ["--config", str(self.scratch / "run.json"), *(["--engine", "local"] if limits else [])]
        if limits:
            command = ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), *command]
        return self.run(command)

    @property
    def log(self) -> Path:
        return self.scratch / "driver.log"

    def run(self, command: Any) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            driver = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, text=True, start_new_session=True
            )
        self.drivers.append(driver)
        return driver

    def commits(self, destination: str) -> int:
        return len(committed(self.direct(destination)))

    def direct(self, url: str) -> Any:
        if url not in self.stores:
            self.stores[url] = Store(url)
        return self.stores[url]


def kill_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.kill()


def terminate_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGTERM)


def interrupt_group(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    """As a terminal does it."""
    os.killpg(driver.pid, signal.SIGINT)


def terminate_group(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    """As systemd and `timeout` do it."""
    os.killpg(driver.pid, signal.SIGTERM)


def damage(change: Callable[[bytes], bytes | None]) -> Attack:
    """One of the committed files becomes other bytes, or none, after a death of the driver."""

    def attack(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
        driver.kill()
        driver.wait(60)
        store = nemesis.direct(nemesis.destination)
        if commits := sorted(committed(store)):
            [path] = files_of(read_commit(store, nemesis.rng.choice(commits))).values()
            data = change(store.read(path))
            store.delete(path) if data is None else store.write(path, data)

    return attack


def kill_actor(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    actors: list[psutil.Process] = []
    while not actors and driver.poll() is None:
        ours = (p for raylet in raylets(nemesis.cluster) for p in raylet.children())
        actors = [p for p in ours if "ray::WorkerActor" in " ".join(p.cmdline())]
    if actors:
        nemesis.rng.choice(actors).kill()


def raylets(cluster: Any) -> list[psutil.Process]:
    """The raylets of this script's cluster: others may run on this machine."""
    found = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    return [psutil.Process(pid) for pid in found]


def kill_raylet(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    nemesis.cluster.remove_node(nemesis.node, allow_graceful=False)
    nemesis.node = add_node(nemesis.cluster)


def add_node(cluster: Any, **variables: str) -> Any:
    return cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20, env_vars=variables)


def other_code(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    """A node that would restore other bytes takes the place of the only good one until the command ends."""
    nemesis.cluster.remove_node(nemesis.node, allow_graceful=False)  # at once, while shards are left
    with tempfile.TemporaryDirectory(dir=nemesis.scratch) as scratch:
        site = redirect(Path(scratch, "site"), other_version(Path(scratch, "code")))
        path = os.pathsep.join([site, nemesis.environment["PYTHONPATH"]])
        other = add_node(nemesis.cluster, PYTHONPATH=path)
        failed = driver.wait(300)
        nemesis.cluster.remove_node(other, allow_graceful=False)
    nemesis.node = add_node(nemesis.cluster)
    log = nemesis.log.read_text()
    if failed and not ("found other code there (bfr: expected" in log and f"on node {socket.gethostname()} (" in log):
        raise SystemExit(f"expected the node with other code to be refused by name, found: {log[-2000:]}")


def kill_prefect(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    nemesis.prefect.kill()
    nemesis.prefect.wait()
    nemesis.prefect = start_prefect(nemesis.environment)


def storm(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    nemesis.proxy.choose = lambda _: "busy"
    time.sleep(nemesis.rng.uniform(3, 15))
    nemesis.proxy.choose = never


def spoil(*kinds: str) -> Attack:
    def attack(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
        nemesis.proxy.choose = some(nemesis.rng.randrange(10**6), 0.2, kinds)

    return attack


def rival(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    nemesis.rivals.append(nemesis.run(driver.args))


def nothing(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    """The row itself is the fault."""


FAULTS: dict[str, tuple[str, Attack]] = {  # (the word in the poison row's id, what is done to the run)
    "SIGKILL of the driver": ("", kill_driver),
    "SIGTERM of the driver": ("", terminate_driver),
    "Ctrl-C in its terminal": ("", interrupt_group),
    "SIGTERM of its control group": ("", terminate_group),
    "a committed file is gone": ("", damage(lambda data: None)),
    "a committed file is cut": ("", damage(lambda data: data[: len(data) // 2])),
    "SIGKILL of an actor": ("", kill_actor),
    "SIGKILL of a node's raylet": ("", kill_raylet),
    "other code on a node": ("", other_code),
    "SIGKILL of the Prefect server": ("", kill_prefect),
    "a second driver": ("", rival),
    "503 storm": ("", storm),
    "connections reset": ("", spoil("reset_before", "reset_upload", "reset_after", "reset_download")),
    "truncated bodies": ("", spoil("truncate")),
    "slow responses": ("", spoil("slow")),
    "disk full": ("", nothing),
    "a row that kills its worker": ("kills", nothing),
    "a row that hangs": ("hangs", nothing),
    "a row out of memory": ("eats", nothing),
    "a row of NaN": ("nan", nothing),
}


STOPS = (terminate_driver, interrupt_group, terminate_group)


def one_round(nemesis: Nemesis, number: int, name: str, expected: dict[str, bytes]) -> Round:
    word, attack = FAULTS[name]
    source = source_url(nemesis, word)
    destination = f"{nemesis.bucket}/round-{number}"
    limits: dict[str, int] = {}
    if name == "disk full":
        destination = str(nemesis.scratch / f"round-{number}")
        limits = {"fsize": 12_000 + nemesis.rng.randrange(8_000)}
    nemesis.log.unlink(missing_ok=True)
    after = nemesis.rng.randrange(SHARDS)  # commits: from the start of the process to the last shard
    delay = nemesis.rng.uniform(0, 1 if after else nemesis.startup_seconds)
    driver = nemesis.start(source, destination, **limits)
    while driver.poll() is None and nemesis.commits(destination) < after:
        time.sleep(0.1)
    time.sleep(delay)
    nemesis.destination = destination
    before, struck = nemesis.commits(destination), time.monotonic()
    strikes = driver.poll() is None and before < SHARDS
    if strikes:
        attack(nemesis, driver)
    stopped = seconds_to_stop(driver, struck) if strikes and attack in STOPS else None
    runs, resumed = to_the_end(nemesis, driver, source, destination, before)
    resumed = resumed and resumed - struck
    hit = strikes and resumed > 0 and (attack is not other_code or runs > 1)  # else the run was done before it joined
    if attack is nothing:
        hit, resumed = True, resumed if limits else 0.0
    while nemesis.rivals:
        nemesis.rivals.pop().wait(600)
    nemesis.proxy.choose = never
    found = judge(destination, word, expected)
    seconds = {"seconds_to_resume": resumed, "seconds_to_stop": stopped}
    return {"round": number, "fault": name, "hits": int(hit), "runs": runs} | seconds | found


def seconds_to_stop(driver: subprocess.Popen[str], struck: float) -> float:
    """From the signal to the end of the driver."""
    driver.wait(60)
    return time.monotonic() - struck


def to_the_end(
    nemesis: Nemesis, driver: subprocess.Popen[str], source: str, destination: str, before: int
) -> tuple[int, float]:
    """Repeats the command until it is done: how many runs that took, and when the first commit beyond `before` came."""
    began, fresh, runs, resumed = time.monotonic(), 0.0, 1, 0.0
    while (code := driver.poll()) != 0:
        if code is not None:
            driver, runs = nemesis.start(source, destination), runs + 1
            fresh = time.monotonic() + nemesis.zombie_seconds
        if time.monotonic() < fresh:
            before, resumed = nemesis.commits(destination), 0.0
        if not resumed and nemesis.commits(destination) > before:
            resumed = time.monotonic()
        if time.monotonic() - began > 600 or runs > 6:
            driver.kill()
            raise SystemExit(f"not done: {nemesis.log.read_text()[-2000:]}")
        time.sleep(0.3)
    if not resumed and nemesis.commits(destination) > before:  # since the last look
        resumed = time.monotonic()
    return runs, resumed


def judge(destination: str, word: str, expected: dict[str, bytes]) -> Round:
    """The invariant: every row once, restored bytes equal; the poison row alone is rejected."""
    store = Store(destination)
    ids, differ = [], 0
    for path in store.list("data") + store.list("rejected"):
        for row in pq.read_table(io.BytesIO(store.read(path))).to_pylist():
            ids.append(row["id"])
            if "restored" in row:
                differ += row["restored"]["bytes"] != expected.get(row["id"])
            else:
                differ += not (word and word in row["id"])
    names = {row_id(i, word) for i in range(ROWS)}
    problems = verify_run(destination)["problems"]
    if problems:
        print(problems, file=sys.stderr)
    return {
        "rows_in": ROWS,
        "rows_out": len(ids),
        "duplicates": len(ids) - len(set(ids)),
        "losses": len(names - set(ids)) + len(problems),
        "bytes_differ": differ,
    }


def write_source(nemesis: Nemesis, word: str) -> None:
    """A dataset with one row whose id contains the word that makes the method misbehave."""
    rows = [row | {"id": row_id(i, word)} for i, row in enumerate(support.make_rows(ROWS))]
    file = support.write_parquet(nemesis.scratch / "a.parquet", rows, group_rows=GROUP_ROWS)
    nemesis.direct(source_url(nemesis, word)).write("a.parquet", file.read_bytes())


def source_url(nemesis: Nemesis, word: str) -> str:
    return f"{nemesis.bucket}/src-{word or 'plain'}"


def row_id(index: int, word: str) -> str:
    return f"{word}-{index}" if word and index == POISON else f"row-{index}"


def start_prefect(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", "18470"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
