"""The long fault run: a seeded nemesis against the real command, a real S3 server, Ray nodes and a Prefect server.

    python benchmarks/fault_run.py --rounds 60

Each round starts `bfr restore s3://... s3://...`, injects one fault at a random point, and runs the same command again
until it is done. Then every input row must be there exactly once, with the bytes of an undisturbed run. Without Ceph
(infra/s3-server.sh) moto stands in for the store. Each round is a line of `benchmarks/results/fault_run.jsonl`, of
which `fault_run.md` is the table; a run that is stopped goes on after its last round. Remove the former to begin again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import support  # noqa: E402
from tests.faults.fault_proxy import FaultProxy, never, some  # noqa: E402

ROWS, GROUP_ROWS = 32, 4
SHARDS = ROWS // GROUP_ROWS
POISON = 21  # the row that a misbehaving method misbehaves on
ZOMBIE_SECONDS = 2.0  # after a restart; commits until then are those of the actors before
RESULTS = Path(__file__).parent / "results"
COUNTS = ("hits", "rows_in", "rows_out", "duplicates", "losses", "bytes_differ", "runs")
Attack = Callable[["Nemesis", "subprocess.Popen[str]"], None]
Round = dict[str, Any]


@dataclass
class Nemesis:
    """Where a run lives, and how to hurt it."""

    bucket: str
    proxy: FaultProxy
    environment: dict[str, str]
    cluster: Any
    scratch: Path
    rng: random.Random = field(default_factory=random.Random)
    node: Any = None
    prefect: Any = None
    rivals: list[subprocess.Popen[str]] = field(default_factory=list)
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
            return subprocess.Popen(  # noqa: S603
                command, env=self.environment, stdout=log, stderr=log, text=True
            )

    def commits(self, destination: str) -> int:
        from tasks.runs.commits import committed

        return len(committed(self.direct(destination)))

    def direct(self, url: str) -> Any:
        from tasks.storage.store import Store

        if url not in self.stores:
            self.stores[url] = Store(url)
        return self.stores[url]


def kill_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.kill()


def terminate_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGTERM)


def kill_actor(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    actors: list[psutil.Process] = []
    while not actors and driver.poll() is None:
        ours = (p for raylet in raylets(nemesis.cluster) for p in raylet.children())
        actors = [p for p in ours if "ray::_WorkerActor" in " ".join(p.cmdline())]
    if actors:
        nemesis.rng.choice(actors).kill()


def raylets(cluster: Any) -> list[psutil.Process]:
    """The raylets of this script's cluster: others may run on this machine."""
    found = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    return [psutil.Process(pid) for pid in found]


def kill_raylet(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    nemesis.cluster.remove_node(nemesis.node, allow_graceful=False)
    nemesis.node = nemesis.cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)


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
    "SIGKILL of an actor": ("", kill_actor),
    "SIGKILL of a node's raylet": ("", kill_raylet),
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


def one_round(nemesis: Nemesis, number: int, name: str, expected: dict[str, bytes]) -> Round:
    word, attack = FAULTS[name]
    source = f"{nemesis.bucket}/src-{word or 'plain'}"
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
    before, struck = nemesis.commits(destination), time.monotonic()
    strikes = driver.poll() is None and before < SHARDS
    if strikes:
        attack(nemesis, driver)
    runs, resumed = to_the_end(nemesis, driver, source, destination, before)
    resumed = resumed and resumed - struck
    hit = strikes and resumed > 0
    if attack is nothing:
        hit, resumed = True, resumed if limits else 0.0
    while nemesis.rivals:
        nemesis.rivals.pop().wait(600)
    nemesis.proxy.choose = never
    found = judge(destination, word, expected)
    return {"round": number, "fault": name, "hits": int(hit), "runs": runs, "seconds_to_resume": resumed} | found


def to_the_end(
    nemesis: Nemesis, driver: subprocess.Popen[str], source: str, destination: str, before: int
) -> tuple[int, float]:
    """The same command until it is done: how many runs of it, and when there was a commit more than `before`."""
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
    import pyarrow.parquet as pq

    from tasks.storage.store import Store
    from tasks.verify_run import verify_run

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


def row_id(index: int, word: str) -> str:
    return f"{word}-{index}" if word and index == POISON else f"row-{index}"


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[tuple[str, int], str]]:
    script = str(ROOT / "infra" / "s3-server.sh")
    if shutil.which("radosgw"):
        subprocess.run([script, "start", str(folder), "18480"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            yield ("127.0.0.1", 18480), "Ceph RGW"
        finally:
            subprocess.run([script, "stop", str(folder)], check=True)  # noqa: S603
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port(), "moto"
    finally:
        server.stop()


def start_prefect(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", "18470"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="altogether, with those that are done")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the round that is under way by then")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated: run it again to go on"))
    began, log = time.monotonic(), RESULTS / "fault_run.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bfr-faults-")))
        upstream, server = stack.enter_context(s3_server(scratch / "s3"))
        proxy = stack.enter_context(FaultProxy(upstream))
        nemesis = prepare(proxy, scratch)
        stack.callback(nemesis.cluster.shutdown)
        stack.callback(lambda: nemesis.prefect.kill())  # noqa: PLW0108
        expected = undisturbed(nemesis)
        for number in range(len(done), args.rounds):
            name = list(FAULTS)[number % len(FAULTS)]
            nemesis.rng = random.Random(f"{args.seed}-{number}")
            started = time.monotonic()
            found = {"server": server, "seed": args.seed} | one_round(nemesis, number, name, expected)
            done.append(found | {"seconds": round(time.monotonic() - started, 1)})
            with log.open("a") as lines:
                lines.write(json.dumps(done[-1]) + "\n")
            (RESULTS / "fault_run.md").write_text(table(done))
            print(done[-1], file=sys.stderr, flush=True)
            if time.monotonic() - began > 60 * args.minutes:
                break
    print(table(done))


def prepare(proxy: FaultProxy, scratch: Path) -> Nemesis:
    """A cluster of two nodes, a Prefect server, a bucket with a dataset for each kind of poison."""
    import fsspec
    from ray.cluster_utils import Cluster

    site = scratch / "site" / "faulty_methods-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1\n")
    (site / "entry_points.txt").write_text("[bfr.methods]\nfaulty = tests.faulty_methods:SPEC\n")
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{proxy.upstream[0]}:{proxy.upstream[1]}",  # for what this script itself asks
        "AWS_ACCESS_KEY_ID": "bfr-test",
        "AWS_SECRET_ACCESS_KEY": "bfr-test-secret",
        "PYTHONPATH": os.pathsep.join([str(site.parent), str(ROOT)]),
        "PREFECT_HOME": str(scratch / "prefect"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # or whatever else runs on this machine starves the actors
        "OMP_NUM_THREADS": "1",
    }
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    environment = dict(os.environ) | {"RAY_ADDRESS": cluster.address, "PREFECT_API_URL": "http://127.0.0.1:18470/api"}
    environment["AWS_ENDPOINT_URL"] = proxy.url
    bucket = "s3://faults"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("faults")
    nemesis = Nemesis(bucket, proxy, environment, cluster, scratch)
    nemesis.node = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    nemesis.prefect = start_prefect(environment)
    while socket.socket().connect_ex(("127.0.0.1", 18470)):
        time.sleep(1)
    for word in {word for word, _ in FAULTS.values()}:
        rows = [row | {"id": row_id(i, word)} for i, row in enumerate(support.make_rows(ROWS))]
        file = support.write_parquet(scratch / "a.parquet", rows, group_rows=GROUP_ROWS)
        nemesis.direct(f"{bucket}/src-{word or 'plain'}").write("a.parquet", file.read_bytes())
    return nemesis


def undisturbed(nemesis: Nemesis) -> dict[str, bytes]:
    import pyarrow.parquet as pq

    destination = f"{nemesis.bucket}/undisturbed"
    driver = nemesis.start(f"{nemesis.bucket}/src-plain", destination)
    if driver.wait(300):
        raise SystemExit(nemesis.log.read_text())
    store = nemesis.direct(destination)
    tables = [pq.read_table(io.BytesIO(store.read(path))) for path in store.list("data")]
    return {row["id"]: row["restored"]["bytes"] for rows in tables for row in rows.to_pylist()}


def table(rounds: list[Round]) -> str:
    """The rounds by fault, and their sums."""
    titles = ("fault", "rounds", *(name.replace("_", " ") for name in COUNTS), "seconds to resume")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for fault in dict.fromkeys(found["fault"] for found in rounds):
        lines.append(_line(fault, [found for found in rounds if found["fault"] == fault]))
    lines.append(_line("all", rounds))
    servers, seeds = (", ".join({str(found[key]) for found in rounds}) for key in ("server", "seed"))
    minutes = sum(found["seconds"] for found in rounds) / 60
    return (
        f"`python benchmarks/fault_run.py`, seed {seeds}, against {servers}, {minutes:.0f} minutes; {ROWS} rows in "
        f"{SHARDS} shards a round, the tests' method `faulty` (mirrors, half a second a call), one actor\n\n"
        + "\n".join(lines)
        + "\n\nHits: rounds in which the fault struck while shards were left, and a commit followed. Runs: commands "
        "that it took. Seconds to resume: from the strike to the next commit, median and longest.\n"
    )


def _line(name: str, rounds: list[Round]) -> str:
    resumed = [found["seconds_to_resume"] for found in rounds if found["seconds_to_resume"]]
    seconds = f"{statistics.median(resumed):.1f}, {max(resumed):.1f}" if resumed else ""
    counts = (sum(found[key] for found in rounds) for key in COUNTS)
    return f"| {' | '.join(map(str, (name, len(rounds), *counts, seconds)))} |"


if __name__ == "__main__":
    main()
