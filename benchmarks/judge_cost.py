"""What judging costs: its share of a restore's time, by the size of the faces.

    python benchmarks/judge_cost.py --data faces512.parquet

Slightly worn photos of one face each, restored with the defaults. Judging is drawing what a face may become (with the
grain of its photo), and asking the judge about it; the share is of all stages of the worker but waiting. Writes
results/judge_cost.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harm
import numpy as np
import pyarrow.parquet as pq
from header import header

LEVEL = "lightly worn"
SIDES = (64, 128, 256, 400)
METHODS = ("difface", "estimator")
NOT_WORK = ("wait", "idle")
TABLE = """| method | face, px | faces | seconds a face | of the method | of judging | share of judging |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of clean aligned faces")
    parser.add_argument("--faces", type=int, default=64, help="of each size")
    args = parser.parse_args()
    lines = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "photos.parquet"
            rows = pq.read_table(args.data, columns=["id", "image"]).to_pylist()[: args.faces]
            rngs = map(np.random.default_rng, range(args.faces))
            harm.write([harm.photo_of(row, LEVEL, side, rng) for row, rng in zip(rows, rngs, strict=False)], source)
            lines += [_line(method, side, _stages(source, Path(scratch) / method, method)) for method in METHODS]
            print("\n".join(lines[-len(METHODS) :]), flush=True)
    text = "\n".join([__doc__.split("\n\n")[2].replace("\n", " "), "", TABLE, *lines])
    (harm.RESULTS / "judge_cost.md").write_text(header() + text + "\n")


def _stages(source: Path, out: Path, method: str) -> dict[str, Any]:
    bfr = str(Path(sys.executable).with_name("bfr"))
    command = [bfr, "restore", str(source), str(out), "--method", method, "--input", "photos", "--engine", "local"]
    subprocess.run([*command, "--fid", "none", "--lpips", "none"], check=True, capture_output=True)  # noqa: S603
    record = json.loads((out / "run.json").read_text())
    return {"faces": sum(record["outcomes"].values()), **record["timings"]["stages"]}


def _line(method: str, side: int, found: dict[str, Any]) -> str:
    faces = found.pop("faces")
    all_work = sum(seconds for name, seconds in found.items() if name not in NOT_WORK)
    per_face = " | ".join(f"{seconds / faces:.4f}" for seconds in (all_work, found["method"], found["judge"]))
    return f"| {method} | {side} | {faces} | {per_face} | {found['judge'] / all_work:.1%} |"


if __name__ == "__main__":
    main()
