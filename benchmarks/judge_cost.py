"""What judging costs: its share of a restore's CPU time, by the size of the faces.

    python benchmarks/judge_cost.py --data faces512.parquet

Slightly worn photos of one face each, restored with the defaults. Judging is asking about what a face may become, whole
and half-way, a face at a time as the worker does; drawing that with the grain of its photo is done without a judge as
well. A restore is all that `bfr restore` does for one face more, in all of its processes. All in CPU milliseconds, by
one thread. Writes results/judge_cost.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import harm
import numpy as np
import pyarrow.parquet as pq
import torch
from header import header

from bfr_models.judge.decision import choose_judge
from bfr_models.pixels import resize, to_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch
from tasks.config.care import MAX_HARM, Care
from tasks.worker.decide import Case, load_decide

LEVEL = "lightly worn"
SIDES = (64, 128, 256, 400)
METHODS = ("difface", "estimator")
BATCH = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
TABLE = """| method | face, px | faces | ms a face | of drawing | of judging | share of judging |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of clean aligned faces")
    parser.add_argument("--faces", type=int, default=240, help="of each size")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = pq.read_table(args.data, columns=["id", "image"]).to_pylist()
    lines = []
    for side in SIDES:
        rngs = map(np.random.default_rng, range(args.faces))
        photos = [harm.photo_of(row, LEVEL, side, rng) for row, rng in zip(itertools.cycle(rows), rngs, strict=False)]
        photos = [replace(photo, id=str(number)) for number, photo in enumerate(photos)]
        for method in METHODS:
            lines.append(_line(method, side, len(photos), _of_restore(photos, method), _of_judging(photos, method)))
            print(lines[-1], flush=True)
    text = "\n".join([__doc__.split("\n\n")[2].replace("\n", " "), "", TABLE, *lines])
    (harm.RESULTS / "judge_cost.md").write_text(header() + text + "\n")


def _of_restore(photos: Sequence[harm.Photo], method: str) -> float:
    """CPU seconds a face: what a run of all photos takes more than one of the first few."""
    few = len(photos) // 10
    return (_of_run(photos, method) - _of_run(photos[:few], method)) / (len(photos) - few)


def _of_run(photos: Sequence[harm.Photo], method: str) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "photos.parquet"
        harm.write(photos, source)
        command = [str(Path(sys.executable).with_name("bfr")), "restore", str(source), f"{scratch}/out"]
        command += ["--method", method, "--input", "photos", "--engine", "local", "--fid", "none", "--lpips", "none"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ONE_THREAD})  # noqa: S603
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _of_judging(photos: Sequence[harm.Photo], method: str) -> tuple[float, float]:
    """CPU seconds a face, of drawing and of judging."""
    resolved = resolve_method(method, "face128")
    decide, restorer = load_decide(Care(choose_judge(resolved), MAX_HARM, 0.0, "input", "keep")), load_method(resolved)
    drawing = judging = 0.0
    for start in range(0, len(photos), BATCH):
        numbers = range(start, min(start + BATCH, len(photos)))
        crops = [photos[n].face(photos[n].damaged) for n in numbers]
        lqs = torch.cat([resize(to_tensor(crop)[None], restorer.size) for crop in crops])
        restored = to_uint8(restorer.restore(FaceBatch(tuple(map(str, numbers)), lqs, tuple(numbers))).images)
        cases = [Case(crop, face, len(crop), n) for crop, face, n in zip(crops, restored, numbers, strict=True)]
        began = time.process_time()
        drawn = [(case, decide.draw(case)) for case in cases]
        then = time.process_time()
        for one in drawn:
            decide.choose([one])
        drawing, judging = drawing + then - began, judging + time.process_time() - then
    return drawing / len(photos), judging / len(photos)


def _line(method: str, side: int, faces: int, restore: float, of_judge: tuple[float, float]) -> str:
    columns = " | ".join(f"{1000 * seconds:.1f}" for seconds in (restore, *of_judge))
    return f"| {method} | {side} | {faces} | {columns} | {of_judge[1] / restore:.1%} |"


if __name__ == "__main__":
    main()
