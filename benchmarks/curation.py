"""What `bfr curate` costs over 200,000 rows: seconds and memory of filter, near-duplicates and exact Fréchet distance.

    python benchmarks/curation.py

A run over a few pictures with `--keep-embeddings` is made, and its rows and embeddings replicated with noise: every
second row is a near-copy of some others. Then the command itself is measured, as a process of its own. `--inception`
gives every face 2,048 made features and as many for its ground truth, and so adds a FID. Results go to
`benchmarks/results/curation.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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

from bfr_models.metrics.frechet import INCEPTION, FeatureSource  # noqa: E402
from bfr_models.types import NetworkChoice  # noqa: E402
from flows.restore_dataset import restore_without_prefect  # noqa: E402
from tasks.config.restore import RestoreRun  # noqa: E402
from tasks.datasets.row_ids import digest_of_ids  # noqa: E402
from tasks.datasets.writer import encode_table  # noqa: E402
from tasks.finish_run import finish_run  # noqa: E402
from tasks.runs.commits import commit_shard  # noqa: E402
from tasks.runs.shards import Shard, to_table  # noqa: E402
from tasks.scoring.embedding_sums import embedding_sums  # noqa: E402
from tasks.scoring.face_vectors import (  # noqa: E402
    SCHEMA,
    SOURCE_KEY,
    FaceFeatures,
)
from tasks.scoring.statistics import BIN_WIDTHS, summarise  # noqa: E402
from tasks.storage.store import Store  # noqa: E402
from tests import support  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "curation.md"
BASE, SIDE, SHARD_ROWS, INCEPTION_FEATURES = 24, 16, 2000, 2048
ROWS_PER_PERSON = 4
WHERE, DEDUPE = "identity_similarity > 0.9 and faces_found = 1", 0.99


@dataclass(frozen=True)
class Cost:
    """Of the command as a process."""

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
    text = _table(record, cost, args)
    RESULTS.write_text(text)
    print(text)


def _make_run(work: Path, rows: int, inception: bool) -> Path:
    """A finished run of so many rows, committed as a worker would."""
    small = work / "small"
    pictures = support.make_rows(BASE)
    for i, row in enumerate(pictures):
        row["gt"] = {"bytes": support.encoded(support.portrait(i + BASE)), "path": None}
    support.write_parquet(small / "src" / "a.parquet", pictures, group_rows=BASE)
    asked = support.make_run(small, gt_column="gt", keep_embeddings=True, shard_rows=BASE)
    restore_without_prefect(asked)
    large = asked.model_copy(update={"destination": str(work / "run")})
    store, rng = Store(large.destination), np.random.default_rng(0)
    store.write("plan/spec.json", (small / "dst" / "plan" / "spec.json").read_bytes())
    counts = [min(SHARD_ROWS, rows - start) for start in range(0, rows, SHARD_ROWS)]
    shards = [
        Shard(f"{i:020x}", f"{large.source}/{i}.parquet", f"{i}.parquet", "1", 0, 1, 0, count)
        for i, count in enumerate(counts)
    ]
    store.write("plan/00000.parquet", encode_table(to_table(shards), 65_536))
    data = support.read_table(small / "dst" / "data").drop_columns(["gt"])
    picture = support.encoded(support.portrait(0, SIDE))
    data = data.set_column(
        data.schema.get_field_index("restored"),
        data.schema.field("restored"),
        pa.array([{"bytes": picture, "path": None}] * len(data), data.schema.field("restored").type),
    )
    faces = np.stack(support.read_table(small / "dst" / "features")["embedding"].to_numpy())
    base = _noisy(faces[rng.integers(0, BASE, rows // ROWS_PER_PERSON)], 0.5, rng)  # people
    for shard in shards:
        _commit(store, shard, large, data, base, rng, inception)
    finish_run(large, datetime.now(UTC))
    if inception:
        record = support.read_record(work / "run")
        record["measures"]["inception"] = {"name": INCEPTION, "sha256": "0" * 64}
        store.write("run.json", json.dumps(record).encode())
    return work / "run"


def _commit(
    store: Store,
    shard: Shard,
    run: RestoreRun,
    data: pa.Table,
    base: NDArray[np.float32],
    rng: np.random.Generator,
    inception: bool,
) -> None:
    n = shard.rows
    chosen = rng.integers(0, len(base), n)
    table = data.take(pa.array(chosen % BASE))
    ids = [f"{shard.name}#{i}" for i in range(n)]
    columns = {"id": ids, "identity_similarity": rng.uniform(0.8, 1.0, n).astype(np.float32)}
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    # A cosine to the person of 0.9995, or of about 0.95: every second row may have near-copies.
    embeddings = _noisy(base[chosen], np.where(rng.random(n) < 0.5, 0.03, 0.3)[:, None], rng)
    gt = _noisy(base[chosen], 0.1, rng)
    about: dict[bytes, str] = {}
    sides: list[NDArray[np.float32]] = []
    if inception:
        scale = (1 / np.sqrt(np.arange(1, INCEPTION_FEATURES + 1))).astype(np.float32)
        sides = [np.abs(rng.standard_normal((n, INCEPTION_FEATURES), np.float32)) * scale for _ in range(2)]
        about[SOURCE_KEY] = json.dumps(vars(FeatureSource(INCEPTION, "0" * 64, "pytorch-fid")))
    lists = {
        "embedding": embeddings,
        "embedding_gt": gt,
        **dict(zip(("inception", "inception_gt"), sides, strict=False)),
    }
    features = {"id": pa.array(ids), "face": pa.array(np.zeros(n, np.int32))}
    features |= {
        name: pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]).cast(pa.list_(pa.float32()))
        for name, values in lists.items()
    }
    arrays = [features.get(name, pa.nulls(n, SCHEMA.field(name).type)) for name in SCHEMA.names]
    recogniser = NetworkChoice(**support.read_record(Path(run.source).parent / "dst")["recogniser"])
    seen = [FaceFeatures(embedding=a, embedding_gt=b) for a, b in zip(embeddings, gt, strict=True)]
    scores = [name for name in BIN_WIDTHS if name in table.column_names]
    facts = {
        "fingerprint": run.resolve().fingerprint,
        "source": shard.source,
        "rows": n,
        "ids": digest_of_ids(ids),
        "restored": n,
        "rejected": 0,
        "rejects": {},
        "faces": n,
        "outcomes": {"restored": n},
        "statistics": summarise([dict.fromkeys(BIN_WIDTHS) | row for row in table.select(scores).to_pylist()]),
        "embedding_sums": embedding_sums(seen, recogniser, shard.id),
        "accelerator_seconds": 0.0,
        "seconds": 0.0,
    }
    files = {
        "data": encode_table(table, 64),
        "features": encode_table(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(about)), 64),
    }
    commit_shard(store, shard.id, files, facts)


def _noisy(
    vectors: NDArray[np.float32], share: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vectors with noise of a share of their length."""
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


def _table(record: dict[str, Any], cost: Cost, args: argparse.Namespace) -> str:
    dedupe = record["dedupe"]
    distances = {name: found for name, found in record["statistics"].items() if name.startswith(("fid", "fd_"))}
    lines = [
        f"`python benchmarks/curation.py --rows {args.rows}{' --inception' if args.inception else ''}`: "
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
        f"Measured on {os.cpu_count()} CPU cores ({platform.machine()}), load {os.getloadavg()[0]:.1f} at the end: "
        "other work ran beside it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
