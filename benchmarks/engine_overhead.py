"""What the engine itself costs, over many tiny rows: the driver's memory, planning, and what a shard adds to its rows.

    python benchmarks/engine_overhead.py --rows 10000,100000,1000000

Packs tiny images and restores them with `passthrough` through Prefect and Ray, once in small shards and once in large
ones. The driver's memory is its highest resident size: of Prefect, Ray and what it keeps of the run. What a shard costs
is the CPU time of all processes with the small shards less that with the large ones, over the difference in shards, so
that rows and start-up cancel: reading, writing, the commit and all that the driver does for it. Planning is in wall and
CPU seconds, in small shards. Writes results/engine_overhead.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from header import header
from PIL import Image
from watching import Taken, watched

RESULTS = Path(__file__).parent / "results"
ROW_GROUP_ROWS = 32
AT_ONCE = 2**16  # rows that are written at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--shard-rows", default="32,512", help="of the small shards, and of the large ones")
    parser.add_argument("--engine", default="ray", help="local: what the driver takes is then the worker's, too")
    parser.add_argument("--only-plan", action="store_true")
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine_overhead.md")
    args = parser.parse_args()
    small, large = map(int, args.shard_rows.split(","))
    lines = ["| rows | shards | planned in, s (CPU s) | rows a shard | wall s | CPU s | driver MiB | a shard, CPU ms |"]
    lines.append("|---" * 8 + "|")
    for rows in map(int, args.rows.split(",")):
        for line in _measured(rows, small, large, args):
            lines.append(line)
            print(line, flush=True)
    args.out.write_text(header() + " ".join(__doc__.split("\n\n")[2].split()) + "\n\n" + "\n".join(lines) + "\n")


def _measured(rows: int, small: int, large: int, args: argparse.Namespace) -> Sequence[str]:
    """Two lines of the table, or one of planning."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "tiny.parquet"
        _write_tiny_rows(source, rows, args.side)
        planned, shards, few = _planned(source, small), -(-rows // small), -(-rows // large)
        if args.only_plan:
            return [f"| {rows} | {shards} | {planned} | {small} | | | | |"]
        outs = ((Path(scratch) / f"out-{size}", size) for size in (small, large))
        fine, coarse = (_restore(source, out, size, args.engine) for out, size in outs)
    each = 1000 * (fine.cpu - coarse.cpu) / (shards - few)
    return [
        f"| {rows} | {shards} | {planned} | {small} | {_figures(fine)} | {each:.1f} |",
        f"| {rows} | {few} | | {large} | {_figures(coarse)} | |",
    ]


def _figures(taken: Taken) -> str:
    return f"{taken.wall:.0f} | {taken.cpu:.0f} | {taken.own / 2**20:.0f}"


def tiny_pictures(side: int) -> list[dict[str, bytes | None]]:
    """64 cells of noise, as PNG."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(64):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    return pictures


def _write_tiny_rows(path: Path, rows: int, side: int) -> None:
    pictures = tiny_pictures(side)
    table = pa.table({"image": [pictures[i % 64] for i in range(min(rows, AT_ONCE))]})
    with pq.ParquetWriter(path, table.schema) as writer:
        for start in range(0, rows, AT_ONCE):
            writer.write_table(table.slice(0, rows - start), row_group_size=ROW_GROUP_ROWS)


def _planned(source: Path, shard_rows: int) -> str:
    """Wall and CPU seconds of planning alone, in this process, which has imported it."""
    from tasks.config.resolve import resolve_run
    from tasks.config.restore import RestoreRun
    from tasks.plan_shards import plan_shards
    from tasks.storage.store import Store

    settings = {"method": "passthrough", "input": "faces", "recogniser": "none", "fid": "none", "lpips": "none"}
    with tempfile.TemporaryDirectory() as out:
        run = RestoreRun(source=str(source), destination=out, shard_rows=shard_rows, **settings)
        resolved, wall, cpu = resolve_run(run), time.monotonic(), time.process_time()
        plan_shards(resolved, Store(out))
    return f"{time.monotonic() - wall:.1f} ({time.process_time() - cpu:.1f})"


def _restore(source: Path, out: Path, shard_rows: int, engine: str) -> Taken:
    command = [str(Path(sys.executable).with_name("bfr")), "restore", str(source), str(out), "--method", "passthrough"]
    command += ["--shard-rows", str(shard_rows), "--input", "faces", "--recogniser", "none", "--fid", "none"]
    return watched([*command, "--lpips", "none", "--engine", engine])


if __name__ == "__main__":
    main()
