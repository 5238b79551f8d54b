"""Trains a component by `bfr_models.training`, with data and results in any store that fsspec reaches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bfr_models.device import local_device
from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.data import FaceFile, read_faces
from bfr_models.training.loop import TrainingRun, require_equal_shares, train
from bfr_models.training.registry import get_component
from bfr_models.training.results import CHECKPOINT, METRICS, PROGRESS
from tasks.config.train import TrainRun
from tasks.engine.ray_session import joined_ray
from tasks.runs.source import open_source
from tasks.storage.filesystem import split_file
from tasks.storage.redaction import redact
from tasks.storage.store import Store
from tasks.storage.waits import say


def train_component(run: TrainRun) -> dict[str, Any]:
    """Trains and returns where the results are. One worker is this process; several are started on Ray, and all start
    again from the last checkpoint if one is lost."""
    component = get_component(run.method, run.component, run.preset)
    require_equal_shares(run.batch_size or component.recipe.batch_size, run.workers, run.accumulate)
    open_source(run.data)  # a mistake is told before anything starts
    destination = Store(run.out)
    destination.require_writable()
    share = partial(train_share, run, _checkpoint(destination))
    if run.workers == 1:
        share(local_device() if run.device == "auto" else run.device, say)
    else:
        with joined_ray(environments=True):
            from tasks.engine.ray_training import train_on_ray

            train_on_ray(share, run.workers, run.device)
    return {"weights": destination.url(f"{run.name}.safetensors"), "metrics": destination.url(METRICS)}


def train_share(run: TrainRun, earlier: str | None, device: str, log: Callable[[str], None]) -> None:
    """One worker's share of a training. `earlier` is the version of the checkpoint that was there before the training
    began: a newer one is its own, from which it goes on after a worker was lost."""
    destination = Store(run.out)
    with tempfile.TemporaryDirectory(prefix="bfr-train-") as scratch:
        folder, given = Path(scratch, "run"), partial(_weights, Path(scratch))
        folder.mkdir()
        frozen = (run.perceptual, run.recogniser, run.irm_low, run.estimator)
        auxiliary = AuxiliaryWeights(*map(given, frozen))
        component = get_component(run.method, run.component, run.preset, auxiliary)
        found = _checkpoint(destination)
        resume = found is not None and (run.resume or found != earlier)
        for name in (CHECKPOINT, METRICS, PROGRESS) if resume else ():
            if destination.exists(name):
                (folder / name).write_bytes(destination.read(name))
        training = TrainingRun(
            name=run.name,
            out=folder,
            device=device,
            initial=given(run.initial),
            resume=resume,
            publish=_Upload(folder, destination),
            **run.settings,
        )
        recipe = training.recipe(component.recipe)
        files = [FaceFile(redact(store.url(file.path)), partial(store.open_input, file.path))
                 for store, file in open_source(run.data)]  # fmt: skip
        faces = read_faces(files, recipe.size, source=redact(run.data), batch_size=recipe.batch_size)
        train(component, faces, training, log)


def _checkpoint(destination: Store) -> str | None:
    """The version of the checkpoint; None without one."""
    return destination.info(CHECKPOINT).version if destination.exists(CHECKPOINT) else None


def _weights(scratch: Path, address: str | None) -> Path | None:
    """A weight file, with its card if it has one, on this machine."""
    if address is None or "://" not in address:
        return address and Path(address)  # type: ignore[return-value]
    folder, name = split_file(address)
    store, path = Store(folder), scratch / name
    path.write_bytes(store.read(name))
    if store.exists(card := str(Path(name).with_suffix(".json"))):
        path.with_suffix(".json").write_bytes(store.read(card))
    return path


class _Upload:
    """Copies what is new in a folder to the destination; the checkpoint last, since a resumed run believes it."""

    def __init__(self, folder: Path, destination: Store) -> None:
        self._folder, self._destination = folder, destination
        self._done: dict[Path, tuple[int, int]] = {}

    def __call__(self) -> None:
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path.name == CHECKPOINT, path)):
            facts = path.stat()
            state = (facts.st_mtime_ns, facts.st_size)
            if self._done.get(path) != state:
                self._destination.write(path.relative_to(self._folder).as_posix(), path.read_bytes())
                self._done[path] = state
