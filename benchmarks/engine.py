"""How busy the engine keeps an accelerator, and the CPU that it takes beside it.

    python benchmarks/engine.py --data faces512.parquet

The accelerator is a method that sleeps for a known time per face. Its busy share is that time over the wall time of the
whole run, start and tail included; beside it the share of the worker's own time, from the loaded method to the last
commit. The CPU seconds are those of a worker over the same rows, with a method that takes no time. Nothing is judged
and no recogniser scores. On a machine that does other things, too, believe the CPU seconds, and compare the shares of
one run only. Writes results/engine.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sleeping_method
from header import header
from PIL import Image
from watching import watched

RESULTS = Path(__file__).parent / "results"
PRESETS = {128: "face128", 512: "ffhq512"}
CPU = ((512, "png", 20), (512, "jpeg", 10), (128, "jpeg", 3))
RATES = {512: (1, 9, 45), 128: (1, 9, 45, 200)}
BATCH, CPU_ROWS = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of aligned faces")
    parser.add_argument("--seconds", type=float, default=60, help="that the accelerator works in each run")
    parser.add_argument("--engines", default="local,ray")
    parser.add_argument("--rates", help="faces per second, as 9,45")
    parser.add_argument("--only-cpu", action="store_true")
    parser.add_argument("--only-shares", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = sleeping_method.install(folder)
        lines = ["| face, px | in and out | CPU ms a face | target |", "|---|---|---|---|"]
        for size, form, target in CPU if not args.only_shares else ():
            source = write_faces(args.data, folder / f"{size}-{form}.parquet", size, form, CPU_ROWS)
            taken = watched([sys.executable, __file__, "--worker", str(source), str(size), form], environment)
            found = json.loads((folder / f"{size}-{form}.json").read_text())
            lines.append(f"| {size} | {form} | {found['cpu_ms']:.1f} | {target} |")
            print(lines[-1], f"{taken.memory / 2**20:.0f} MiB", flush=True)
        rates = {int(rate) for rate in args.rates.split(",")} if args.rates else None
        if not args.only_cpu:
            lines += ["", *_shares(args.data, folder, environment, args.seconds, args.engines.split(","), rates)]
    text = header() + __doc__.split("\n\n")[2].replace("\n", " ") + "\n\n" + "\n".join(lines) + "\n"
    (RESULTS / "engine.md").write_text(text)


def _shares(
    data: Path, folder: Path, environment: dict[str, str], seconds: float, engines: list[str], rates: set[int] | None
) -> Iterator[str]:
    yield "| face, px | faces/s it can do | engine | faces | busy, of the run | of the worker's time | faces/s |"
    yield "|---|---|---|---|---|---|---|"
    for size, all_rates in RATES.items():
        for rate in (rate for rate in all_rates if rates is None or rate in rates):
            count = max(BATCH, round(seconds * rate))
            source = write_faces(data, folder / f"{size}-{rate}.parquet", size, "jpeg", count)
            for engine in engines:
                record = _restore(source, folder / f"{size}-{rate}-{engine}", size, 1 / rate, engine, environment)
                wall, busy = record["totals"]["wall_seconds"], record["timings"]["busy_share"]
                share = count / rate / wall
                line = f"| {size} | {rate} | {engine} | {count} | {share:.1%} | {busy:.1%} | {count / wall:.1f} |"
                print(line, record["timings"]["stages"], flush=True)
                yield line


def _restore(
    source: Path, out: Path, size: int, seconds: float, engine: str, environment: dict[str, str]
) -> dict[str, Any]:
    settings = out.with_suffix(".yaml")
    settings.write_text(json.dumps({"options": {"seconds": seconds}}))
    options = ["--method", "sleeping", "--preset", PRESETS[size], "--config", str(settings)]
    options += [
        "--engine",
        engine,
        "--recogniser",
        "none",
        "--format",
        "jpeg",
        "--batch-size",
        str(BATCH),
        "--input",
        "faces",
    ]
    bfr = str(Path(sys.executable).with_name("bfr"))
    watched([bfr, "restore", str(source), str(out), *options, "--fid", "none", "--lpips", "none"], environment)
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def write_faces(data: Path, target: Path, size: int, form: str, count: int) -> Path:
    """`count` faces of `size` px, in row groups of 32."""
    cells = pq.read_table(data, columns=["image"])["image"].to_pylist()
    faces = []
    for cell in cells[: min(count, len(cells))]:
        image = Image.open(io.BytesIO(cell["bytes"])).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        image.save(file := io.BytesIO(), form, **({"quality": 95} if form == "jpeg" else {}))
        faces.append({"bytes": file.getvalue(), "path": None})
    ids = [f"{number}" for number in range(count)]
    rows = {"id": ids, "image": [faces[number % len(faces)] for number in range(count)]}
    pq.write_table(pa.table(rows), target, row_group_size=32, compression="none")
    return target


def _measure_worker(source: Path, size: int, form: str) -> None:
    """Leaves the CPU milliseconds per face of a worker beside the source."""
    settings = {"preset": PRESETS[size], "format": form, "input": "faces"}
    source.with_suffix(".json").write_text(json.dumps({"cpu_ms": of_worker(source, settings)}))


def of_worker(source: Path, settings: Mapping[str, Any]) -> float:
    """CPU milliseconds per row of a worker, by a method that takes no time. The first shard is not counted."""
    from tasks.config.resolve import resolve_run
    from tasks.config.restore import RestoreRun
    from tasks.plan_shards import plan_shards
    from tasks.storage.store import Store
    from tasks.worker.job import Order, make_job
    from tasks.worker.shard_worker import ShardWorker

    out = str(source.with_suffix(""))
    sleeping: dict[str, Any] = {"method": "sleeping", "recogniser": "none", "engine": "local", "batch_size": BATCH}
    run = RestoreRun(source=str(source), destination=out, **sleeping | dict(settings))
    resolved = resolve_run(run)
    shards = list(plan_shards(resolved, Store(out)).todo)
    worker = ShardWorker(make_job(resolved, "cpu", None))
    worker.load()
    worker.run(Order(shards[0]))
    began = time.process_time()
    with ThreadPoolExecutor(2) as threads:
        records = list(threads.map(worker.run, map(Order, shards[1:])))
    rows = sum(record["rows"] for record in records if record)
    cpu = time.process_time() - began
    worker.close()
    return 1000 * cpu / rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _measure_worker(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main()
