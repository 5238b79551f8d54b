"""What the engine itself costs: memory of the driver and overhead per shard, over many tiny rows.

    python benchmarks/engine_overhead.py --rows 100000

Packs tiny images, restores them with `passthrough` through Prefect and Ray, and watches the driver.
The overhead of a shard is the wall time between the first and the last commit, less the time that the
worker had a shard in hand, divided by the number of shards.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from header import measured
from PIL import Image

RESULTS = Path(__file__).parent / "results"
ROW_GROUP_ROWS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--shard-rows", type=int, default=256)
    parser.add_argument("--side", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "tiny.parquet", Path(scratch) / "out"
        _write_tiny_rows(source, args.rows, args.side)
        wall, peak = _restore(source, out, args.shard_rows)
        facts = (
            {"measured": measured()}
            | _facts(out)
            | {"wall_seconds": round(wall, 1), "driver_peak_rss_mib": round(peak / 2**20)}
        )
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(facts, indent=2)
    (RESULTS / "engine_overhead.json").write_text(text + "\n")
    print(text)


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
    table = pa.table({"image": [pictures[i % 64] for i in range(rows)]})
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS)


def _restore(source: Path, out: Path, shard_rows: int) -> tuple[float, int]:
    bfr = str(Path(sys.executable).parent / "bfr")
    command = [bfr, "restore", str(source), str(out), "--method", "passthrough", "--shard-rows", str(shard_rows)]
    return watched(command)


def watched(command: Sequence[str], **environment: str) -> tuple[float, int]:
    """Wall seconds and the driver's own peak resident memory in bytes (Ray and Prefect's server not counted)."""
    started, peak = time.monotonic(), 0
    driver = psutil.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
    while driver.poll() is None:
        try:
            peak = max(peak, driver.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.2)
    if driver.wait():
        raise SystemExit(f"{' '.join(command)} failed with {driver.returncode}")
    return time.monotonic() - started, peak


def _facts(out: Path) -> dict[str, float]:
    commits = [json.loads(path.read_text()) for path in (out / "commits").glob("*.json")]
    times = sorted(path.stat().st_mtime for path in (out / "commits").glob("*.json"))
    busy = sum(commit["seconds"] for commit in commits[1:])
    span = times[-1] - times[0]
    return {
        "rows": sum(commit["rows"] for commit in commits),
        "shards": len(commits),
        "milliseconds_per_shard_wall": round(1000 * span / (len(commits) - 1), 1),
        "milliseconds_per_shard_in_worker": round(1000 * busy / (len(commits) - 1), 1),
        "commit_record_bytes": round(sum(p.stat().st_size for p in (out / "commits").glob("*.json")) / len(commits)),
    }


if __name__ == "__main__":
    main()
