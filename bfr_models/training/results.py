"""What a training leaves in its folder: metrics, curves, samples, weights with their card. The first rank alone writes.

checkpoint.pt   all that a resumed run needs          metrics.jsonl   held-out figures, of every evaluation
samples/*.png   of held-out faces                     progress.jsonl  loss, learning rate and speed, every few steps
tensorboard/    both as event files, where the package tensorboard is installed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bfr_models.pixels import to_uint8
from bfr_models.training.component import Recipe
from bfr_models.training.data import Faces
from bfr_models.training.state import State
from bfr_models.weights.tensors import parameters_of, save_weights

PREVIEW_FACES = 6
CHECKPOINT, METRICS, PROGRESS = "checkpoint.pt", "metrics.jsonl", "progress.jsonl"


class Results:
    """Written while a run goes on, from the step on at which it starts: what it will compute again is dropped."""

    def __init__(self, out: Path, name: str, step: int) -> None:
        self.out, self.name = out, name
        for file in (METRICS, PROGRESS):
            _forget_after(step, out / file)
        self._events = _event_files(out / "tensorboard", step)

    @property
    def weights(self) -> Path:
        return self.out / f"{self.name}.safetensors"

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        """Of training itself."""
        self._add(PROGRESS, "train", step, figures)

    @torch.no_grad()
    def evaluate(self, state: State, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """Held-out metrics of the average, which are added to the curve, and samples."""
        network = state.ema.module.eval()
        metrics = state.component.evaluate(network, gt, lq)
        self._add(METRICS, "held_out", state.step, metrics)
        columns = state.component.preview(network, gt[:PREVIEW_FACES], lq[:PREVIEW_FACES])
        grid = torch.cat([torch.cat(list(column.cpu()), dim=1) for column in columns], dim=2)
        (self.out / "samples").mkdir(exist_ok=True)
        Image.fromarray(to_uint8(grid)).save(self.out / "samples" / f"step-{state.step:07d}.png")
        return metrics

    def export(self, recipe: Recipe, faces: Faces, state: State, metrics: dict[str, float], seed: int) -> None:
        """The weights: the average, in fp16, with a card."""
        card = {
            "name": self.name,
            "parameters": sum(p.numel() for p in state.network.parameters()),
            "data": faces.description,
            "recipe": asdict(recipe),
            "steps": state.step,
            "held_out": metrics,
            "curve": _curve(self.out / METRICS),
            "seed": seed,
            **state.component.provenance(),
        }
        save_weights(parameters_of(state.ema.module), card, self.weights)

    def _add(self, file: str, group: str, step: int, figures: Mapping[str, float]) -> None:
        with (self.out / file).open("a") as lines:
            lines.write(json.dumps({"step": step, **figures}) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(f"{group}/{name}", value, step)
            self._events.flush()


def _event_files(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None without the package. It hides what an earlier run wrote of later steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _forget_after(step: int, path: Path) -> None:
    """Drops the lines that this run will compute again, and a last one that was cut while being written."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


def _curve(path: Path) -> dict[str, list[float]]:
    """The held-out metrics of every evaluation, by name; six digits are enough to look at."""
    evaluations = [json.loads(line) for line in path.read_text().splitlines()]
    return {name: [float(f"{found[name]:.6g}") for found in evaluations] for name in evaluations[-1]}
