"""The methods on degraded faces: fidelity, identity, sharpness, seconds.

    python benchmarks/small_scale.py --data faces.parquet --preset gfpgan --size 128

Uses the command line alone, as a user would. `input` is the degraded picture itself (`passthrough`, which
leaves a face of the right size alone). Sharpness is the mean luma gradient relative to the ground truth's.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from bfr_models.metrics.fidelity import sharpness

METHODS = ("passthrough", "estimator", "difface")
METRICS = ("psnr", "ssim", "identity_similarity_gt", "identity_similarity")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="dataset of aligned faces; the demo's two portraits by default")
    parser.add_argument("--preset", default="gfpgan", help="degradation")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--keep", type=Path, help="folder for the datasets and runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        lq = _pairs(args, folder)
        table = {name: _restored(folder, lq, name, args.preset) for name in args.methods.split(",")}
    RESULTS.mkdir(exist_ok=True)
    name = f"small_scale-{args.preset}-{Path(args.data).stem if args.data else 'portraits'}"
    text = _markdown(table)
    command = f"python benchmarks/small_scale.py --preset {args.preset} --size {args.size} --data {_name(args.data)}"
    (RESULTS / f"{name}.md").write_text(f"`{command}` on {platform.machine()}, CPU\n\n{text}")
    print(text)


def _pairs(args: argparse.Namespace, folder: Path) -> Path:
    if args.data is None:
        from tasks.demo_faces import make_demo_faces

        make_demo_faces(str(folder / "lq"))
        return folder / "lq"
    pairs = folder / f"lq-{args.preset}"
    _bfr("degrade", args.data, pairs, "--preset", args.preset, "--size", args.size, "--seed", 0)
    return pairs


def _restored(folder: Path, lq: Path, method: str, preset: str) -> dict[str, float]:
    out = folder / f"{method}-{preset}"
    record = _bfr("restore", lq, out, "--method", method, "--gt-column", "gt", "--engine", "local")
    statistics = record["statistics"]
    means = {name: statistics[name].get("mean", float("nan")) for name in METRICS}
    seconds = record["totals"]["accelerator_seconds"] / record["totals"]["restored"]
    return means | {"sharpness": _relative_sharpness(out), "seconds": seconds}


def _relative_sharpness(run: Path) -> float:
    """Mean gradient of the restored faces over that of their ground truth."""
    rows = [row for file in sorted((run / "data").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    gt = [sharpness(np.asarray(Image.open(io.BytesIO(row["gt"]["bytes"])).convert("RGB"))) for row in rows]
    return sum(row["faces"][0]["sharpness"] for row in rows) / sum(gt)


def _bfr(*arguments: object) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "bfr"), *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _markdown(table: dict[str, dict[str, float]]) -> str:
    names = {"passthrough": "input"}
    lines = ["| method | PSNR, dB | SSIM | identity to gt | identity to input | sharpness / gt | s a face |"]
    lines.append("|---|---|---|---|---|---|---|")
    for method, v in table.items():
        cells = (f"{v['psnr']:.2f}", f"{v['ssim']:.3f}", f"{v['identity_similarity_gt']:.3f}")
        cells += (f"{v['identity_similarity']:.3f}", f"{v['sharpness']:.2f}", f"{v['seconds']:.2f}")
        lines.append(f"| {names.get(method, method)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _name(data: str | None) -> str:
    return Path(data).name if data else "(the demo's portraits)"


if __name__ == "__main__":
    main()
