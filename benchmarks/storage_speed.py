"""Throughput of `difface` at face128 from and to a real S3 server against local disk.

    python benchmarks/storage_speed.py --data FACES.parquet

Needs Ceph's packages (infra/s3-server.sh). Two workers with the same loaded method take turns at the same
shards, one on local disk and one on S3, so that both see the same load on the machine; the result is the median of the
pairs' ratios. Workers are threads of this process, which leaves out the start of Ray and Prefect. Writes
`benchmarks/results/storage_speed.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from header import header

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.support import infra_server  # noqa: E402

PORT, SHARD_ROWS = 18490, 8
PLACES = ("local disk", "S3")
Pair = dict[str, float]
"""Rows per second of either place."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--shards", type=int, default=3, help=f"of {SHARD_ROWS} rows, for each half of a pair")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bfr-speed-") as scratch, infra_server("s3-server.sh", PORT) as said:
        os.environ |= dict(word.split("=", 1) for word in said.split())
        pairs = measure(Path(scratch), args.data, args.pairs, args.shards)
    text = table(pairs, args.shards)
    (ROOT / "benchmarks" / "results" / "storage_speed.md").write_text(text)
    print(text)


def measure(scratch: Path, data: str, pairs: int, shards: int) -> list[Pair]:
    """The first pair warms up and is left out."""
    import fsspec

    from tasks.config.resolve import resolve_run
    from tasks.config.restore import RestoreRun
    from tasks.plan_shards import plan_shards
    from tasks.restore_shards import restore_shards, worker_pool
    from tasks.storage.store import Store

    fsspec.filesystem("s3").mkdir("speed")
    roots = dict(zip(PLACES, (str(scratch / "local"), "s3://speed"), strict=True))
    rows = (pairs + 1) * shards * SHARD_ROWS
    faces = pq.read_table(data)
    pq.write_table(faces.take(pa.array(np.arange(rows) % len(faces))), scratch / "a.parquet", row_group_size=SHARD_ROWS)
    found: list[Pair] = []
    with ExitStack() as stack:
        pools, todo = {}, {}
        for place, root in roots.items():
            Store(f"{root}/src").write("a.parquet", (scratch / "a.parquet").read_bytes())
            settings = {"method": "difface", "engine": "local", "shard_rows": SHARD_ROWS}
            run = resolve_run(RestoreRun(source=f"{root}/src", destination=f"{root}/dst", **settings))
            todo[place] = list(plan_shards(run, Store(f"{root}/dst")).todo)
            pools[place] = stack.enter_context(worker_pool(run))
        for number in range(pairs + 1):
            mine, speeds = slice(number * shards, (number + 1) * shards), Pair()
            for place in PLACES[:: 1 if number % 2 else -1]:
                began = time.monotonic()
                restore_shards(pools[place], todo[place][mine], lambda record: None)
                speeds[place] = shards * SHARD_ROWS / (time.monotonic() - began)
            print(number, speeds, file=sys.stderr, flush=True)
            found.append(speeds)
    return found[1:]


def table(pairs: list[Pair], shards: int) -> str:
    ratios = [pair["S3"] / pair["local disk"] for pair in pairs]
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    lines = [f"| pair | {' | '.join(f'{place}, rows/s' for place in PLACES)} | S3 / local disk |", "|---|---|---|---|"]
    for number, (pair, ratio) in enumerate(zip(pairs, ratios, strict=True), 1):
        lines.append(f"| {number} | {' | '.join(f'{pair[place]:.3f}' for place in PLACES)} | {ratio:.3f} |")
    return (
        f"{header()}`difface` at face128 with its defaults, {shards} shards of {SHARD_ROWS} rows at a time, on cores "
        f"that other work shares, Ceph RGW among it (load {os.getloadavg()[2]:.0f} over the last quarter of an "
        "hour)\n\n" + "\n".join(lines) + "\n\n"
        f"Median of the ratios: **{statistics.median(ratios):.3f}**, 95 % interval of the median [{low:.3f}, "
        f"{high:.3f}] (bootstrap).\n"
    )


if __name__ == "__main__":
    main()
