"""Throughput of `difface` at face128 from and to a real S3 server against local disk, in turns.

    python benchmarks/storage_speed.py --data FACES.parquet --rows 64 --turns 2

Needs Ceph's packages (infra/s3-server.sh). Both run in threads of this process: rows per second with a loaded method,
without what Ray and Prefect take to start.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PORT = 18490


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    script = str(ROOT / "infra" / "s3-server.sh")
    with tempfile.TemporaryDirectory(prefix="bfr-speed-") as scratch:
        started = subprocess.run(  # noqa: S603
            [script, "start", f"{scratch}/s3", str(PORT)], check=True, capture_output=True, text=True
        )
        try:
            os.environ |= dict(word.split("=", 1) for word in started.stdout.split())
            measure(Path(scratch), args.data, args.rows, args.turns)
        finally:
            subprocess.run([script, "stop", f"{scratch}/s3"], check=True)  # noqa: S603


def measure(scratch: Path, data: str, rows: int, turns: int) -> None:
    import fsspec

    from tasks._storage import Store

    places = {"local disk": str(scratch / "local"), "S3": "s3://speed"}
    fsspec.filesystem("s3").mkdir("speed")
    pq.write_table(pq.read_table(data).slice(0, rows), scratch / "a.parquet", row_group_size=8)
    for place in places.values():
        Store(f"{place}/src").write("a.parquet", (scratch / "a.parquet").read_bytes())
    restore(places["local disk"], "warm-up")
    speeds: dict[str, list[float]] = {name: [] for name in places}
    for turn in range(turns):
        for name in list(places)[:: 1 if turn % 2 else -1]:
            speeds[name].append(rows / restore(places[name], f"dst-{turn}"))
            print(f"{name}: {speeds[name][-1]:.2f} rows/s", flush=True)
    local, s3 = (statistics.median(speeds[name]) for name in ("local disk", "S3"))
    print(f"S3 / local disk: {s3 / local:.3f} (medians of {turns})")


def restore(place: str, name: str) -> float:
    """Seconds that the shards of a run take, from a loaded worker on."""
    from tasks.config import RestoreRun
    from tasks.plan_shards import plan_shards
    from tasks.restore_shards import restore_shards, worker_pool

    settings = {"method": "difface", "engine": "local", "shard_rows": 8}
    run = RestoreRun(source=f"{place}/src", destination=f"{place}/{name}", **settings)
    plan = plan_shards(run)
    with worker_pool(run) as pool:
        began = time.monotonic()
        restore_shards(pool, list(plan.todo), lambda record: None)
        return time.monotonic() - began


if __name__ == "__main__":
    main()
