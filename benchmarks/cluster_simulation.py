"""What many workers and many shards come to, on a simulated clock, and what runs of 10^6, 10^8 and 10^9 faces need.

    python benchmarks/cluster_simulation.py --shards 100000 --nodes 25

The dispatcher and the policy for the number of workers are the real ones; workers, their deaths and the time are
simulated (`tests/tasks/engine/simulated_cluster.py`): 8 workers a node, 60 s a shard. "Efficiency" is the time that the
same work would take without any loss, divided by the time that it took.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
from pathlib import Path

from header import header

RESULT = Path(__file__).parent / "results" / "cluster_simulation.md"
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.tasks.engine.fake_pool import shard  # noqa: E402
from tests.tasks.engine.simulated_cluster import Conditions, simulated  # noqa: E402

HOUR, DAY = 3600.0, 86400.0
FACES_PER_SECOND = 10.0  # of a GPU; assumed
SCALES = ((10**6, 128), (10**8, 512), (10**9, 1024))  # (faces, rows of a shard)
LISTED, LIST_SECONDS = 1000, 0.1  # keys of an answer of S3, seconds that it takes; assumed
GET_SECONDS, READERS = 0.03, 16  # of a record; assumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=25)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lines = [f"{args.shards:,} shards, {args.nodes} nodes of 8 workers\n", *_weather(args.shards, args.nodes), ""]
    RESULT.write_text(header() + "\n".join(lines + _scales()) + "\n")
    print(RESULT.read_text())


def _weather(shards: int, nodes: int) -> list[str]:
    poison = {str(number * shards // 50): {3} for number in range(50)}
    scenes = {
        "nothing happens": Conditions(nodes),
        "a worker dies every 6 hours of its life": Conditions(nodes, worker_lives=6 * HOUR),
        "a node dies daily": Conditions(nodes, node_lives=DAY),
        "a node dies every 4 hours (spot)": Conditions(nodes, node_lives=4 * HOUR),
        "50 shards hold a row that kills": Conditions(nodes, poison=poison),
        "one node is ten times as slow": Conditions(nodes, slow={0: 10.0}),
    }
    lines = ["| | hours | efficiency | workers died | orders | CPU of the dispatcher and the simulation, s |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, conditions in scenes.items():
        began = time.process_time()
        cluster, dispatch, order = simulated([shard(number) for number in range(shards)], conditions)
        assert len(set(order)) == len(order) == shards and not dispatch.set_aside
        workers = sum(8 / conditions.slow.get(node, 1.0) for node in range(nodes))
        ideal = shards * conditions.shard / workers
        lines.append(
            f"| {name} | {cluster.now / HOUR:.2f} | {ideal / cluster.now:.1%} | {cluster.deaths} | {cluster.orders} | "
            f"{time.process_time() - began:.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def _scales() -> list[str]:
    """Plan and lists are measured with 100,000 shards and multiplied."""
    import pyarrow.parquet as pq

    from tasks.runs.shards import to_table
    from tests.support import make_shard

    sample = 100_000
    table = to_table([make_shard(f"{number:016x}", first_row=64 * number, rows=64) for number in range(sample)])
    pq.write_table(table, file := io.BytesIO())
    done = sum(map(sys.getsizeof, table["id"].to_pylist()))
    plan, memory = len(file.getvalue()) / sample, (table.nbytes + done) / sample
    lines = [
        f"At {FACES_PER_SECOND:g} faces/s a GPU, {LIST_SECONDS:g} s per listing of {LISTED} keys and {GET_SECONDS:g} s "
        f"per GET by {READERS} readers, which are assumed; sizes are measured.\n",
        "| faces | rows per shard | shards | GPU-hours | plan file, MB | driver: plan and what is done, MB | "
        "requests to commit | list `commits/`, min | read all records, min | Prefect task runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for faces, rows in SCALES:
        shards = -(-faces // rows)
        lines.append(
            f"| {faces:,} | {rows} | {shards:,} | {faces / FACES_PER_SECOND / HOUR:,.0f} | "
            f"{plan * shards / 1e6:,.1f} | {memory * shards / 1e6:,.0f} | {3 * shards:,} | "
            f"{shards / LISTED * LIST_SECONDS / 60:,.1f} | {shards * GET_SECONDS / READERS / 60:,.1f} | "
            f"{-(-shards // 5000) + 3:,} |"
        )
    return lines


if __name__ == "__main__":
    main()
