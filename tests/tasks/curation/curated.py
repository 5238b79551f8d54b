"""Curates the runs of conftest.py and reads the result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bfr_models.metrics.frechet import INCEPTION, FeatureSource
from tasks.config.curate import CurateRun
from tasks.curate_run import curate_run
from tasks.runs.manifest import write_manifest
from tasks.runs.sealed import seal
from tasks.scoring.face_vectors import SCHEMA, SOURCE_KEY
from tasks.storage.store import Store
from tests import support

HOSTILE = ("../../x", "/etc/passwd", "<script>alert(1)</script>", "a.b.c", "..", "", "nul\x00", "é" * 300, "C:\\x|y")
ROWS = 18


def curated(hostile_run: Path, tmp_path: Path, **asked: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = curate_run(CurateRun(source=str(hostile_run), destination=str(tmp_path / "out"), **asked))
    return record, pq.read_table(tmp_path / "out" / "data").to_pylist()


def curated_files(hostile_run: Path, tmp_path: Path, form: str, **asked: Any) -> None:
    curate_run(CurateRun(source=str(hostile_run), destination=str(tmp_path / "out"), format=form, **asked))


def run_rows(hostile_run: Path) -> list[dict[str, Any]]:
    return support.read_table(hostile_run / "data").to_pylist()


def dropped(tmp_path: Path) -> list[dict[str, Any]]:
    return pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()


def with_features(hostile_run: Path, folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """The run as if the Inception had seen each face and its ground truth."""
    rng = np.random.default_rng(0)
    features, gt = rng.standard_normal((2, 17, 12)).astype(np.float32)
    features[5] = features[6] * 2  # rows 6 and 7 of the input, of which the third is broken
    for path in hostile_run.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(hostile_run)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(hostile_run)).write_bytes(path.read_bytes())
    manifest = pq.read_table(folder / "manifest.parquet").to_pylist()
    about = {SOURCE_KEY: json.dumps(vars(FeatureSource(INCEPTION, "ab", "pytorch-fid")))}
    first = 0
    for entry in manifest:
        ids = pq.read_table(folder / entry["data"])["id"].to_pylist()
        rows = [
            {"id": row_id, "face": 0, "inception": features[first + i], "inception_gt": gt[first + i]}
            for i, row_id in enumerate(ids)
        ]
        entry["features"] = f"features/{entry['shard']}.parquet"
        (folder / "features").mkdir(exist_ok=True)
        table = support.pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(about))
        pq.write_table(table, folder / entry["features"])
        first += len(ids)
    write_manifest(Store(str(folder)), manifest)
    record = support.read_record(folder)
    record["measures"]["inception"] = {"name": INCEPTION, "sha256": "ab"}
    (folder / "run.json").write_text(json.dumps(seal(record)))
    return folder, features, gt
