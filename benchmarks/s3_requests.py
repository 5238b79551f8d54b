"""How many requests, and how many bytes, a row costs at an S3 server: what a store bills, and what a network carries.

    python benchmarks/s3_requests.py

Needs Ceph's packages (infra/s3-server.sh). Restores faces with `passthrough` from and to a real S3 server through a
proxy that counts, once a few shards and once more of them. What a shard and a row cost is the difference, so that the
run's own requests (listing, plan, report) are apart. Bytes are those of bodies. Writes results/s3_requests.md.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from header import header
from PIL import Image
from watching import watched

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.fault_proxy import FaultProxy  # noqa: E402
from tests.support import infra_server, portrait  # noqa: E402

PORT, SIDE, SHARD_ROWS = 18492, 256, 32


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    shards: int
    requests: Counter[str]  # by method
    up: Counter[str]  # bytes, by folder
    down: Counter[str]
    source: int  # bytes of its file

    @property
    def rows(self) -> int:
        return self.shards * SHARD_ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default="2,10", help="of the two runs")
    args = parser.parse_args()
    with infra_server("s3-server.sh", PORT) as said:
        os.environ |= dict(word.split("=", 1) for word in said.split())
        few, many = (cost_of(int(shards)) for shards in args.shards.split(","))
    text = header() + " ".join(__doc__.split("\n\n")[2].split()) + "\n\n" + table(few, many)
    (ROOT / "benchmarks" / "results" / "s3_requests.md").write_text(text)
    print(text)


def cost_of(shards: int) -> Cost:
    import fsspec

    bucket = f"s3://requests-{shards}"
    files = fsspec.filesystem("s3")
    files.mkdir(bucket.removeprefix("s3://"))
    pq.write_table(faces(shards * SHARD_ROWS), data := io.BytesIO(), row_group_size=SHARD_ROWS, compression="none")
    files.pipe_file(f"{bucket}/src/a.parquet", data.getvalue())
    command = [str(Path(sys.executable).with_name("bfr")), "restore", f"{bucket}/src", f"{bucket}/dst"]
    command += ["--method", "passthrough", "--engine", "local", "--input", "faces", "--format", "jpeg"]
    command += ["--shard-rows", str(SHARD_ROWS), "--recogniser", "none", "--fid", "none", "--lpips", "none"]
    with FaultProxy(("127.0.0.1", PORT)) as proxy:
        watched(command, {"AWS_ENDPOINT_URL": proxy.url})
        return Cost(
            shards, proxy.count(), _by_folder(proxy.bytes_up), _by_folder(proxy.bytes_down), len(data.getvalue())
        )


def faces(count: int) -> pa.Table:
    """Grainy ones, as JPEG; no two alike."""
    rng, cells = np.random.default_rng(0), []
    for number in range(count):
        grainy = portrait(number % 8, SIDE) + rng.normal(0, 3, (SIDE, SIDE, 1))
        Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file := io.BytesIO(), "JPEG", quality=92)
        cells.append({"bytes": file.getvalue(), "path": None})
    return pa.table({"id": [str(number) for number in range(count)], "image": cells})


def table(few: Cost, many: Cost) -> str:
    shards, rows, source = many.shards - few.shards, many.rows - few.rows, many.source - few.source
    methods = sorted(many.requests)
    lines = ["| | " + " | ".join(methods) + " | all | bytes read | bytes written |", "|---" * (len(methods) + 4) + "|"]
    for cost in (few, many):
        lines.append(
            f"| a run of {cost.shards} shards | " + " | ".join(f"{n:,}" for n in _figures(cost, methods)) + " |"
        )
    more = [b - a for a, b in zip(_figures(few, methods), _figures(many, methods), strict=True)]
    for name, count in ((f"a shard of {SHARD_ROWS} rows", shards), ("a row", rows)):
        lines.append(f"| {name} | " + " | ".join(_figure(figure / count) for figure in more) + " |")
    lines.append(f"\nA row's bytes at the source: {source / rows:,.0f}. Read for a row, by folder: ")
    folders = {folder: (bytes_ - few.down[folder]) / rows for folder, bytes_ in many.down.items()}
    lines[-1] += ", ".join(f"{folder} {value:,.0f}" for folder, value in sorted(folders.items()) if value >= 1) + "."
    return "\n".join(lines) + "\n"


def _figures(cost: Cost, methods: list[str]) -> list[int]:
    counts = [cost.requests[method] for method in methods]
    return [*counts, sum(counts), cost.down.total(), cost.up.total()]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _by_folder(bytes_: Counter[str]) -> Counter[str]:
    """/bucket/dst/data/x.parquet counts as dst/data, and what is asked of the bucket itself as listing."""
    found: Counter[str] = Counter()
    for path, count in bytes_.items():
        found["/".join(path.partition("?")[0].split("/")[2:-1]) or "listing"] += count
    return found


if __name__ == "__main__":
    main()
