"""Trains a component by `bfr_models.training`, with data and results in any store that fsspec reaches."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.data import read_faces
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import get_component
from tasks.runs.source import open_source
from tasks.storage.store import Store


def train_component(
    method: str,
    component: str,
    preset: str,
    data: str,
    out: str,
    *,
    device: str | None = None,
    perceptual: Path | None = None,
    recogniser: Path | None = None,
    irm_low: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Trains on this machine and returns where the weights are. `settings` are fields of `TrainingRun`."""
    trained = get_component(method, component, preset, AuxiliaryWeights(perceptual, recogniser, irm_low))
    destination = Store(out)
    with tempfile.TemporaryDirectory(prefix="bfr-train-") as scratch:
        faces_dir, run_dir = Path(scratch) / "faces", Path(scratch) / "run"
        _download(data, faces_dir)
        if settings.get("resume") and destination.exists("checkpoint.pt"):
            run_dir.mkdir()
            (run_dir / "checkpoint.pt").write_bytes(destination.read("checkpoint.pt"))
            if destination.exists("metrics.jsonl"):
                (run_dir / "metrics.jsonl").write_bytes(destination.read("metrics.jsonl"))
        run = TrainingRun(
            name=f"{method}-{preset}-{component}",
            out=run_dir,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            publish=lambda: _upload(run_dir, destination),
            **settings,
        )
        weights = train(trained, read_faces(faces_dir, trained.recipe.size), run, log=_log)
        return {"weights": destination.url(weights.name), "metrics": destination.url("metrics.jsonl")}


def _download(url: str, folder: Path) -> None:
    folder.mkdir()
    for number, (store, file) in enumerate(open_source(url)):
        (folder / f"{number:05d}.parquet").write_bytes(store.read(file.path))


def _upload(folder: Path, destination: Store) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            destination.write(file.relative_to(folder).as_posix(), file.read_bytes())


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
