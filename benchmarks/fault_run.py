"""The long fault run: a seeded nemesis against the real command, a real S3 server, Ray nodes and a Prefect server.

    python benchmarks/fault_run.py --rounds 60

Each round starts `bfr restore s3://... s3://...`, injects one fault at a random point, and runs the same command again
until it is done. Then every input row must be there exactly once, with the bytes of an undisturbed run. Without Ceph
(infra/s3-server.sh) moto stands in for the store. Each round is a line of `benchmarks/results/fault_run.jsonl`, and
`fault_run.md` is its table. A run that was stopped continues after its last round; remove the .jsonl to start over.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from header import header

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import support  # noqa: E402
from tests.faults.fault_proxy import FaultProxy  # noqa: E402
from tests.faults.nemesis import (  # noqa: E402
    FAULTS,
    ROWS,
    SHARDS,
    Nemesis,
    Round,
    add_node,
    one_round,
    source_url,
    start_prefect,
    write_source,
)

RESULTS = Path(__file__).parent / "results"
PREFECT = ("127.0.0.1", 18470)
COUNTS = ("hits", "rows_in", "rows_out", "duplicates", "losses", "bytes_differ", "runs")


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
        nemesis = prepare(proxy, scratch, stack)
        expected = undisturbed(nemesis)
        for number in range(len(done), args.rounds):
            name = min(FAULTS, key=[found["fault"] for found in done].count)
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


def prepare(proxy: FaultProxy, scratch: Path, stack: ExitStack) -> Nemesis:
    """A cluster of two nodes, a Prefect server, a bucket with a dataset for each kind of poison; `stack` ends them."""
    import fsspec
    from ray.cluster_utils import Cluster

    if not socket.socket().connect_ex(PREFECT):
        raise SystemExit(f"expected port {PREFECT[1]} to be free, found a server there; end it, then run this again")
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
    stack.callback(cluster.shutdown)
    environment = dict(os.environ) | {"RAY_ADDRESS": cluster.address, "PREFECT_API_URL": "http://127.0.0.1:18470/api"}
    environment["AWS_ENDPOINT_URL"] = proxy.url
    bucket = "s3://faults"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("faults")
    nemesis = Nemesis(bucket, proxy, environment, cluster, scratch)
    stack.callback(lambda: [process.kill() for process in (*nemesis.drivers, nemesis.prefect) if process])
    nemesis.node = add_node(cluster)
    nemesis.prefect = start_prefect(environment)
    while socket.socket().connect_ex(PREFECT):
        time.sleep(1)
    for word in {word for word, _ in FAULTS.values()}:
        write_source(nemesis, word)
    return nemesis


def undisturbed(nemesis: Nemesis) -> dict[str, bytes]:
    destination = f"{nemesis.bucket}/undisturbed"
    driver = nemesis.start(source_url(nemesis, ""), destination)
    if driver.wait(300):
        raise SystemExit(nemesis.log.read_text())
    return support.restored_images_at(destination)


def table(rounds: list[Round]) -> str:
    """The rounds by fault, and their sums."""
    titles = ("fault", "rounds", *(name.replace("_", " ") for name in COUNTS), "seconds to stop", "seconds to resume")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for fault in dict.fromkeys(found["fault"] for found in rounds):
        lines.append(_line(fault, [found for found in rounds if found["fault"] == fault]))
    lines.append(_line("all", rounds))
    servers, seeds = (", ".join({str(found[key]) for found in rounds}) for key in ("server", "seed"))
    minutes = sum(found["seconds"] for found in rounds) / 60
    return (
        f"{header()}Seed {seeds}, against {servers}, {minutes:.0f} minutes; {ROWS} rows in {SHARDS} shards a round, "
        "the tests' method `faulty` (mirrors, half a second a call), one actor\n\n"
        + "\n".join(lines)
        + "\n\nHits: rounds in which the fault struck while shards were left, and a commit followed. Runs: commands "
        "that it took. Seconds to stop: from the signal to the end of the command; to resume: from the strike to the "
        "next commit, median and longest.\n"
    )


def _line(name: str, rounds: list[Round]) -> str:
    resumed = [found["seconds_to_resume"] for found in rounds if found["seconds_to_resume"]]
    seconds = f"{statistics.median(resumed):.1f}, {max(resumed):.1f}" if resumed else ""
    counts = (sum(found[key] for found in rounds) for key in COUNTS)
    stops = [found["seconds_to_stop"] for found in rounds if found.get("seconds_to_stop")]
    to_stop = f"{statistics.median(stops):.1f}, {max(stops):.1f}" if stops else ""
    return f"| {' | '.join(map(str, (name, len(rounds), *counts, to_stop, seconds)))} |"


if __name__ == "__main__":
    main()
