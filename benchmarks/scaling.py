"""What more workers are worth: a method that only sleeps, on 1, 2 and 16 Ray actors; nodes from none to three and back.

    python benchmarks/scaling.py --shards 96 --seconds 4
    python benchmarks/scaling.py --parts nodes

Each number of actors restores the same shards, by a method that sleeps for as long each time, so that this machine's
cores are only needed for what Ray, the dispatcher and the commits do. The time counts from when all actors have loaded
the method until the last commit: reading the first shards, and the end, when some have nothing left to do, are in it.
What they take to start is beside it. Then a cluster of Ray's own autoscaler, whose nodes are processes of this machine
and claim a GPU each that nobody looks for: a run that asks for three workers begins while there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from header import header

RESULT = Path(__file__).parent / "results" / "scaling.md"
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tasks.config.environment import prepare_environment  # noqa: E402
from tasks.engine.ray_token import prepare_token  # noqa: E402
from tests import support  # noqa: E402
from tests.autoscaler import autoscaling_cluster, figures_of, wait_until  # noqa: E402

ROWS = 2  # of a shard; one batch
NODES = 3
# No network looks at the faces: all actors have this machine's cores together, for what they do beside sleeping.
UNMEASURED = {"recogniser": "none", "lpips": "none", "fid": "none", "max_harm": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=4.0, help="that the method sleeps for a shard")
    parser.add_argument("--actors", default="1,2,16")
    parser.add_argument("--parts", default="actors,nodes")
    args = parser.parse_args()
    lines = [f"Load {os.getloadavg()[1]:.1f} over the last 5 minutes\n"]
    with tempfile.TemporaryDirectory(prefix="bfr-", ignore_cleanup_errors=True) as folder, _sleeper(Path(folder)):
        if "actors" in args.parts:
            support.write_parquet(Path(folder, "src/a.parquet"), support.make_rows(ROWS * args.shards), group_rows=ROWS)
            lines += _table(Path(folder), [int(each) for each in args.actors.split(",")], args.seconds)
        if "nodes" in args.parts:
            lines += _there_and_back(Path(folder))
    RESULT.write_text(header() + "\n".join(lines) + "\n")
    print(RESULT.read_text())


@contextmanager
def _sleeper(folder: Path) -> Iterator[None]:
    """Installs the tests' method that sleeps, as users' own methods are, for this process and all that it starts."""
    installed = folder / "site" / "faulty_methods-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[bfr.methods]\nfaulty = tests.faulty_methods:SPEC\n")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(installed.parent), str(ROOT), before])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare_environment()
    prepare_token()
    sys.path.insert(0, str(installed.parent))
    yield
    os.environ["PYTHONPATH"] = before


def _table(folder: Path, sizes: list[int], seconds: float) -> list[str]:
    import ray

    ray.init("local", num_cpus=max(sizes), include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
    found = {size: _timed(folder, size, seconds) for size in sizes}
    ray.shutdown()
    first = found[sizes[0]][1]
    lines = ["| actors | until all are ready, s | then, s | times as fast |", "|---|---|---|---|"]
    lines += [f"| {n} | {ready:.1f} | {took:.2f} | {first / took:.2f} |" for n, (ready, took) in found.items()]
    return [*lines, ""]


def _timed(folder: Path, actors: int, seconds: float) -> tuple[float, float]:
    """(seconds until all workers are ready, seconds that they then work)."""
    from tasks.config.resolve import resolve_run
    from tasks.restore_shards import restore_shards, worker_pool

    run = support.make_run(folder, "faulty", destination=str(folder / f"dst-{actors}"), engine="ray", actors=actors,
                           device="cpu", shard_rows=ROWS, options={"seconds": seconds}, **UNMEASURED)  # fmt: skip
    shards = list(support.plan_run(run).todo)
    began = time.monotonic()
    with worker_pool(resolve_run(run)) as pool:
        pool.resize(len(shards))
        while pool.workers() != (actors, actors):
            pool.poll(0.1)
        ready = time.monotonic()
        restore_shards(pool, shards, lambda _: None)
        return ready - began, time.monotonic() - ready


def _there_and_back(folder: Path) -> list[str]:
    support.write_parquet(folder / "nodes/a.parquet", support.make_rows(48), group_rows=ROWS)
    port = support.free_ports(1)
    settings = {"options": {"seconds": 4.0}, "shard_rows": ROWS, "input": "faces", "device": "cuda",
                "min_actors": NODES, "metrics_port": port, **UNMEASURED}  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(settings))
    command = [*support.BFR, "restore", str(folder / "nodes"), str(folder / "back"), "--method", "faulty",
               "--config", str(folder / "run.yaml")]  # fmt: skip
    with autoscaling_cluster(folder, NODES, os.environ) as cluster:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
        wait_until(lambda: figures_of(port).get("bfr_workers_wanted") == NODES)
        nodes = wait_until(lambda: cluster.nodes == NODES)
        ready = nodes + wait_until(lambda: figures_of(port).get("bfr_workers_ready") == NODES)
        wait_until(lambda: cluster.nodes == 0 or run.poll() not in {None, 0})
        gone, last = time.time(), max(path.stat().st_mtime for path in Path(folder, "back/commits").iterdir())
        code = run.wait()
    return [
        f"From no node to {NODES}, and back, by Ray's autoscaler (a node that is idle for 5 s goes):\n",
        "| | s |",
        "|---|---|",
        f"| workers are asked for, until there are {NODES} nodes | {nodes:.1f} |",
        f"| until {NODES} workers have loaded the method | {ready:.1f} |",
        f"| the last shard is committed, until there is no node (exit code {code}) | {gone - last:.1f} |",
    ]


if __name__ == "__main__":
    main()
