"""What `bfr curate` costs over 200,000 rows: seconds and memory of filter, near-duplicates and exact Fréchet distance.

    python benchmarks/curation.py

Runs a restore with `--keep-embeddings` over a few images and replicates its rows and embeddings with noise, so that
every second row is a near-copy of some others. Then measures the command as a process of its own. `--inception` gives
every face and its ground truth 2,048 synthetic features, which adds a FID. Writes `benchmarks/results/curation.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from header import header  # noqa: E402

from bfr_models.metrics.frechet import INCEPTION, FeatureSource  # noqa: E402
from flows.restore_dataset import restore_without_prefect  # noqa: E402
from tasks.config.resolve import resolve_run  # noqa: E402
from tasks.datasets.writer import encode_table  # noqa: E402
from tasks.finish_run import finish_run  # noqa: E402
from tasks.runs.commits import commit_shard  # noqa: E402
from tasks.runs.layout import RECORD, SPEC, plan_file  # noqa: E402
from tasks.runs.sealed import seal  # noqa: E402
from tasks.runs.shards import Shard, to_table  # noqa: E402
from tasks.scoring.face_vectors import FaceFeatures  # noqa: E402
from tasks.storage.store import Store  # noqa: E402
from tasks.worker.job import make_job  # noqa: E402
from tasks.worker.output import Done, shard_output  # noqa: E402
from tasks.worker.read_shard import Row, ShardInput  # noqa: E402
from tests import support  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "curation.md"
BASE, SIDE, SHARD_ROWS, INCEPTION_FEATURES = 24, 16, 2000, 2048
SOURCE = FeatureSource(INCEPTION, "0" * 64, "pytorch-fid")  # of features that are made up
ROWS_PER_PERSON = 4
WHERE, DEDUPE = "identity_similarity > 0.9 and faces_found = 1", 0.99


@dataclass(frozen=True)
class Cost:
    """What the command took, as a process."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--inception", action="store_true", help="a FID beside it, over 2,048 features")
    parser.add_argument("--work", type=Path, help="folder for the run, used again if there; else a temporary one")
    args = parser.parse_args()
    work = Path(args.work or tempfile.mkdtemp(prefix="bfr-curation-"))
    try:
        run = work / "run"
        if not (run / "run.json").exists():
            _make_run(work, args.rows, args.inception)
        record, cost = _curate(run, work / "curated")
    finally:
        if args.work is None:
            shutil.rmtree(work)
    text = _table(record, cost)
    RESULTS.write_text(text)
    print(text)


def _make_run(work: Path, rows: int, inception: bool) -> None:
    """A finished run of that many rows, committed as a worker would."""
    small, rng = work / "small", np.random.default_rng(0)
    images = support.make_rows(BASE)
    for i, row in enumerate(images):
        row["gt"] = {"bytes": support.encoded(support.portrait(i + BASE)), "path": None}
    support.write_parquet(small / "src" / "a.parquet", images, group_rows=BASE)
    run = support.make_run(small, gt_column="gt", keep_embeddings=True, shard_rows=BASE)
    restore_without_prefect(run)
    large = resolve_run(run.model_copy(update={"destination": str(work / "run")}))
    job, store = make_job(large, "cpu", None), Store(large.run.destination)
    store.write(SPEC, (small / "dst" / SPEC).read_bytes())
    shards = [_shard(i, min(SHARD_ROWS, rows - start)) for i, start in enumerate(range(0, rows, SHARD_ROWS))]
    store.write(plan_file(0), encode_table(to_table(shards), 65_536))
    faces = np.stack(support.read_table(small / "dst" / "features")["embedding"].to_numpy())
    people = _noisy(faces[rng.integers(0, BASE, rows // ROWS_PER_PERSON)], 0.5, rng)
    restored = support.read_table(small / "dst" / "data").drop_columns(["gt"]).to_pylist()
    for row in restored:
        row["restored"]["bytes"] = support.encoded(support.portrait(0, SIDE))
    for shard in shards:
        results = _results(shard, restored, people, rng, inception)
        # The input had no columns but the image: none are carried along.
        source = ShardInput([done.row for done in results], job.columns, _no_columns(shard.rows), lambda _: None)
        files, facts = shard_output(job, shard, source, results, SOURCE if inception else None)
        commit_shard(store, shard, files, facts | {"seconds": 0.0})
    finish_run(large, store, datetime.now(UTC))
    if inception:
        record = support.read_record(work / "run")
        record["measures"]["inception"] = {"name": INCEPTION, "sha256": SOURCE.sha256}
        store.write(RECORD, json.dumps(seal(record)).encode())


def _shard(number: int, rows: int) -> Shard:
    return Shard(f"{number:020x}", f"/src/{number}.parquet", f"{number}.parquet", "1", 0, 1, 0, rows)


def _no_columns(rows: int) -> pa.Table:
    return pa.table({"image": pa.nulls(rows)})


def _results(
    shard: Shard, restored: list[dict[str, Any]], people: NDArray[np.float32], rng: np.random.Generator, inception: bool
) -> list[Done]:
    """Rows as if restored: each is one of `restored`, with a face of one of `people`."""
    n = shard.rows
    chosen, similarities = rng.integers(0, len(people), n), rng.uniform(0.8, 1.0, n)
    # A cosine to the person of 0.9995, or of about 0.95: every second row may have near-copies.
    embeddings = _noisy(people[chosen], np.where(rng.random(n) < 0.5, 0.03, 0.3)[:, None], rng)
    gt = _noisy(people[chosen], 0.1, rng)
    scale = (1 / np.sqrt(np.arange(1, INCEPTION_FEATURES + 1))).astype(np.float32)
    sides: Any = (np.abs(rng.standard_normal((2, n, INCEPTION_FEATURES), np.float32)) * scale) if inception else None
    results = []
    for i in range(n):
        row = Row(i, f"{shard.name}#{i}", 0)
        values = restored[chosen[i] % BASE] | {"id": row.id, "identity_similarity": float(similarities[i])}
        looks = (sides[0][i], sides[1][i]) if inception else (None, None)
        results.append(Done(row, values, [FaceFeatures(*looks, embeddings[i], gt[i])]))
    return results


def _noisy(
    vectors: NDArray[np.float32], share: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """The vectors plus noise, whose length is a share of theirs."""
    noise = rng.standard_normal(vectors.shape) / vectors.shape[1] ** 0.5
    return (vectors + share * np.linalg.norm(vectors, axis=1, keepdims=True) * noise).astype(np.float32)


def _curate(run: Path, destination: Path) -> tuple[dict[str, Any], Cost]:
    """curation.json, and what the command cost as a process."""
    shutil.rmtree(destination, ignore_errors=True)
    words = ["curate", str(run), str(destination), "--where", WHERE, "--dedupe", str(DEDUPE), "--json"]
    code = "import sys; from flows.cli.app import main; sys.argv[0] = 'bfr'; main()"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code, *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
    seconds, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    record = json.loads((destination / "curation.json").read_text())
    assert pq.read_metadata(destination / "dropped.parquet").num_rows == record["counts"]["dropped"]
    return record, Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _table(record: dict[str, Any], cost: Cost) -> str:
    dedupe = record["dedupe"]
    distances = {name: found for name, found in record["statistics"].items() if name.startswith(("fid", "fd_"))}
    lines = [
        f"`bfr curate RUN OUT --where '{WHERE}' --dedupe {DEDUPE}`, the whole command",
        "",
        "| step | dropped | left |",
        "|---|---|---|",
        *(f"| {step['step']} | {step['dropped']:,} | {step['left']:,} |" for step in record["steps"]),
        "",
        f"Seconds: {cost.seconds:.1f}; of a CPU: {cost.cpu_seconds:.1f}. Peak memory: {cost.peak_mib:.0f} MiB.",
        f"Near-duplicates by {dedupe['look']} "
        f"({dedupe['index']}, {dedupe['vectors']:,} vectors): {dedupe['groups']:,} groups.",
        *(
            f"{name}: {found['value']:.6f} of {found['n']:,} kept faces against {found['n_reference']:,} "
            f"({found['reference']})."
            for name, found in distances.items()
            if found["value"] is not None
        ),
        "",
        f"Load {os.getloadavg()[0]:.1f} at the end: other work ran beside it.",
    ]
    return header() + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
