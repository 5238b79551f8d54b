"""The long fault run: a seeded nemesis against the real command, a real S3 server, Ray nodes and a Prefect server.

    python benchmarks/fault_run.py --rounds 50

Each round starts `bfr restore s3://... s3://...`, injects one fault at a random point, and runs the same command again
until it is done. Then every input row must be there exactly once, with the bytes of an undisturbed run. Without Ceph
(infra/s3-server.sh) moto stands in for the store. Results go to `benchmarks/results/fault_run.md`.
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
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
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
POISON = 21  # the row that a misbehaving method misbehaves on
COLUMNS = ("rounds", "hits", "rows_in", "rows_out", "duplicates", "losses", "bytes_differ", "runs", "seconds_to_resume")
Attack = Callable[["Nemesis", "subprocess.Popen[str]"], None]


@dataclass
class Nemesis:
    """Where a run lives, and how to hurt it."""

    bucket: str
    proxy: FaultProxy
    environment: dict[str, str]
    cluster: Any
    scratch: Path
    rng: random.Random
    node: Any = None
    prefect: Any = None
    stores: dict[str, Any] = field(default_factory=dict)
    results: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def start(self, source: str, destination: str, **limits: int) -> subprocess.Popen[str]:
        settings = {"method": "faulty", "options": {"seconds": 1.0}, "shard_rows": GROUP_ROWS, "actors": 2}
        settings |= {"gpus_per_actor": 0, "shard_timeout": 20, "max_rejects": 1.0, "recogniser": "none"}
        (self.scratch / "run.json").write_text(json.dumps(settings))  # which is YAML, too
        command = [str(Path(sys.executable).with_name("bfr")), "restore", source, destination]
        command += ["--config", str(self.scratch / "run.json"), *(["--engine", "local"] if limits else [])]
        if limits:
            command = ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), *command]
        log = (self.scratch / "driver.log").open("w")
        return subprocess.Popen(  # noqa: S603
            command, env=self.environment, stdout=log, stderr=log, text=True, start_new_session=True
        )

    def commits(self, destination: str) -> int:
        from tasks._commits import committed

        return len(committed(self.direct(destination)))

    def direct(self, url: str) -> Any:
        from tasks._storage import Store

        if url not in self.stores:
            self.stores[url] = Store(url)
        return self.stores[url]


def kill_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.kill()


def terminate_driver(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGTERM)


def kill_actor(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    actors = [p for p in psutil.process_iter(["cmdline"]) if "ray::_WorkerActor" in " ".join(p.info["cmdline"] or [])]
    nemesis.rng.choice(actors).kill()


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


def nothing(nemesis: Nemesis, driver: subprocess.Popen[str]) -> None:
    """The row itself is the fault."""


FAULTS: dict[str, tuple[str, Attack]] = {  # (the word in the poison row's id, what is done to the run)
    "SIGKILL of the driver": ("", kill_driver),
    "SIGTERM of the driver": ("", terminate_driver),
    "SIGKILL of an actor": ("", kill_actor),
    "SIGKILL of a node's raylet": ("", kill_raylet),
    "SIGKILL of the Prefect server": ("", kill_prefect),
    "503 storm": ("", storm),
    "connections reset": ("", spoil("reset_before", "reset_after")),
    "truncated bodies": ("", spoil("truncate")),
    "slow responses": ("", spoil("slow")),
    "disk full": ("", nothing),
    "a row that kills its worker": ("kills", nothing),
    "a row that hangs": ("hangs", nothing),
    "a row out of memory": ("eats", nothing),
    "a row of NaN": ("nan", nothing),
}


def one_round(nemesis: Nemesis, number: int, name: str, expected: dict[str, bytes]) -> dict[str, float]:
    word, attack = FAULTS[name]
    source = f"{nemesis.bucket}/src-{word or 'plain'}"
    destination = f"{nemesis.bucket}/round-{number}"
    limits: dict[str, int] = {}
    if name == "disk full":
        destination = str(nemesis.scratch / f"round-{number}")
        limits = {"fsize": 12_000 + nemesis.rng.randrange(8_000)}
    after = nemesis.rng.randrange(1, ROWS // GROUP_ROWS - 3)  # commits: workers are at work by then
    driver, runs, hit, resumed = nemesis.start(source, destination, **limits), 1, False, 0.0
    began, resuming, before, in_time = time.monotonic(), 0.0, 0, False
    while True:
        ended = driver.poll() is not None
        if not hit and (ended or nemesis.commits(destination) >= after):
            hit = True
            if not ended:
                attack(nemesis, driver)
                in_time = nemesis.commits(destination) < ROWS // GROUP_ROWS
        if resuming and not resumed and (ended or nemesis.commits(destination) > before):
            resumed = time.monotonic() - resuming
        if ended and driver.returncode == 0:
            break
        if ended:
            before, resuming = nemesis.commits(destination), resuming or time.monotonic()
            driver, runs = nemesis.start(source, destination), runs + 1
        if time.monotonic() - began > 300 or runs > 6:
            driver.kill()
            raise SystemExit(f"{name}: not done: {(nemesis.scratch / 'driver.log').read_text()[-2000:]}")
        time.sleep(0.2)
    nemesis.proxy.choose = never
    in_time = in_time or attack is nothing
    return judge(destination, word, expected) | {"hits": in_time, "runs": runs, "seconds_to_resume": resumed}


def judge(destination: str, word: str, expected: dict[str, bytes]) -> dict[str, float]:
    """The invariant: every row once, restored bytes equal; the poison row alone is rejected."""
    import pyarrow.parquet as pq

    from tasks._storage import Store
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
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose names hold this")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the round that is under way by then")
    args = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bfr-faults-")))
        upstream, server = stack.enter_context(s3_server(scratch / "s3"))
        proxy = stack.enter_context(FaultProxy(upstream))
        nemesis = prepare(proxy, scratch, random.Random(args.seed))
        stack.callback(nemesis.cluster.shutdown)
        stack.callback(lambda: nemesis.prefect.kill())  # noqa: PLW0108
        expected = undisturbed(nemesis)
        names = [name for name in FAULTS if args.only in name]
        for number in range(args.rounds):
            name = names[number % len(names)]
            found = one_round(nemesis, number, name, expected)
            nemesis.results[name].append(found)
            print(f"{number + 1}: {name}: {found}", file=sys.stderr, flush=True)
            if time.monotonic() - began > 60 * args.minutes:
                break
    text = table(nemesis.results, server, args.seed, time.monotonic() - began)
    (Path(__file__).parent / "results" / "fault_run.md").write_text(text)
    print(text)


def prepare(proxy: FaultProxy, scratch: Path, rng: random.Random) -> Nemesis:
    """A cluster of two nodes, a Prefect server, a bucket with a dataset for each kind of poison."""
    import fsspec
    from ray.cluster_utils import Cluster

    site = scratch / "site" / "faulty_methods-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1\n")
    (site / "entry_points.txt").write_text("[bfr.methods]\nfaulty = tests.faulty_methods:SPEC\n")
    os.environ |= {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "bfr-test",
        "AWS_SECRET_ACCESS_KEY": "bfr-test-secret",
        "PYTHONPATH": os.pathsep.join([str(site.parent), str(ROOT)]),
        "PREFECT_HOME": str(scratch / "prefect"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    environment = dict(os.environ) | {"RAY_ADDRESS": cluster.address, "PREFECT_API_URL": "http://127.0.0.1:18470/api"}
    bucket = "s3://faults"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("faults")
    nemesis = Nemesis(bucket, proxy, environment, cluster, scratch, rng)
    nemesis.node = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    nemesis.prefect = start_prefect(environment)
    while socket.socket().connect_ex(("127.0.0.1", 18470)):
        time.sleep(1)
    for word in {word for word, _ in FAULTS.values()}:
        rows = [row | {"id": row_id(i, word)} for i, row in enumerate(support.rows(ROWS))]
        file = support.write(scratch / "a.parquet", rows, group_rows=GROUP_ROWS)
        nemesis.direct(f"{bucket}/src-{word or 'plain'}").write("a.parquet", file.read_bytes())
    return nemesis


def undisturbed(nemesis: Nemesis) -> dict[str, bytes]:
    import pyarrow.parquet as pq

    destination = f"{nemesis.bucket}/undisturbed"
    driver = nemesis.start(f"{nemesis.bucket}/src-plain", destination)
    if driver.wait(300):
        raise SystemExit((nemesis.scratch / "driver.log").read_text())
    store = nemesis.direct(destination)
    tables = [pq.read_table(io.BytesIO(store.read(path))) for path in store.list("data")]
    return {row["id"]: row["restored"]["bytes"] for rows in tables for row in rows.to_pylist()}


def table(results: dict[str, list[dict[str, float]]], server: str, seed: int, seconds: float) -> str:
    lines = [f"| fault | {' | '.join(name.replace('_', ' ') for name in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    total: dict[str, float] = defaultdict(float)
    for name, rounds in results.items():
        sums: dict[str, float] = {key: sum(found[key] for found in rounds) for key in rounds[0]}
        resumed = [found["seconds_to_resume"] for found in rounds if found["seconds_to_resume"]]
        sums |= {"rounds": len(rounds), "seconds_to_resume": sum(resumed) / len(resumed) if resumed else 0.0}
        lines.append(_line(name, sums))
        for key in COLUMNS[:-1]:
            total[key] += sums[key]
    lines.append(_line("all", total | {"seconds_to_resume": 0.0}))
    head = f"`python benchmarks/fault_run.py` with seed {seed}, against {server}, {seconds / 60:.0f} minutes\n\n"
    note = (
        "\n\nHits: rounds in which shards were still to do when the fault had struck. Seconds to resume: from the "
        "start of the next command to its first commit, the mean where there was one.\n"
    )
    return head + "\n".join(lines) + note


def _line(name: str, sums: dict[str, float]) -> str:
    cells = [f"{sums[key]:.1f}" if key == "seconds_to_resume" else f"{sums[key]:.0f}" for key in COLUMNS]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
