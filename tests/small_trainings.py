"""Trainings small enough to run in seconds, in this process or in several that share each batch."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bfr_models.methods.difface_presets import DifFacePreset
from bfr_models.methods.preset import OURS
from bfr_models.networks.configs import SwinIRConfig, UNetConfig, UNetEstimatorConfig
from bfr_models.training import data, ranks
from bfr_models.training.clr_face import Autoencoder
from bfr_models.training.component import AuxiliaryWeights, Component
from bfr_models.training.data import FaceFile, local_files, read_faces
from bfr_models.training.estimator_unet import UNetRegression
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import build_component
from tests.clr_face import TINY as CLR_FACE
from tests.diffbfr import TINY as DIFFBFR
from tests.support import free_ports

SIZE = 32
BATCH, STEPS, RATE = 4, 3, 1e-3
TINY = DifFacePreset(
    "tiny",
    SIZE,
    OURS,
    estimator=SwinIRConfig(
        unshuffle=2, embed_dim=24, depths=(2,), num_heads=2, drop_path=0.3, img_size=16, num_feat=8,
    ),
    prior=UNetConfig(sample_size=SIZE, channels=(16, 32), head_dim=8, norm_groups=8, unshuffle=2),
    max_timestep=300,
)  # fmt: skip
UNET = UNetEstimatorConfig(channels=(8, 12, 16), blocks=(1, 1, 1), half_channels=8, full_channels=6, coarsest=2)


def _component(method: str, name: str, preset: Any, squeezenet: Path, teacher: Path) -> Component:
    known = {
        "estimator": AuxiliaryWeights(squeezenet, teacher), "irm_low": AuxiliaryWeights(squeezenet),
        "estimator_unet": AuxiliaryWeights(squeezenet), "vqgan": AuxiliaryWeights(squeezenet),
        "recogniser": AuxiliaryWeights(recogniser=teacher),
    }  # fmt: skip
    built = build_component(method, name, preset, known.get(name, AuxiliaryWeights()))
    built.recipe = replace(built.recipe, batch_size=BATCH, learning_rate=RATE, warmup=1, ema=0.9)
    if isinstance(built, Autoencoder):
        built.weights = replace(built.weights, gan_from=1)
        built.IDLE_STEPS = 2
    if isinstance(built, UNetRegression):
        built.PERCEPTUAL_FROM = 0
    return built


KINDS: dict[str, Callable[[Path, Path], Component]] = {
    "estimator": partial(_component, "difface", "estimator", TINY),
    "estimator_unet": partial(_component, "difface", "estimator_unet", replace(TINY, estimator=UNET)),
    "prior": partial(_component, "difface", "prior", TINY),
    "irm_low": partial(_component, "diffbfr", "irm_low", DIFFBFR),
    "irm_high": partial(_component, "diffbfr", "irm_high", DIFFBFR),
    "flow": partial(_component, "diffbfr", "flow", DIFFBFR),
    "vqgan": partial(_component, "clr_face", "vqgan", CLR_FACE),
    "recogniser": partial(_component, "clr_face", "recogniser", CLR_FACE),
}
"""Of each component, how it is made of SqueezeNet's weights and a teacher's."""


def rounding(steps: int, rate: float, parameters: int, summands: int) -> float:
    """How far two float32 runs of the same sums in different orders may be apart in their losses, of about 1.

    A sum of n numbers has an error with a deviation of sqrt(n) / 2^24 of their size. Adam moves each weight by `rate`
    at most, and by a share of it that is as far off as the gradient is of the gradient's size, so a step moves the loss
    by rate times the sum of the errors: for a gradient of norm 1 with p entries that is sqrt(p) sqrt(n) / 2^24.
    Four deviations are passed once in 16,000 times.
    """
    return 4 * math.sqrt(summands) / 2**24 * (1 + steps * rate * math.sqrt(parameters))


def trained_parameters(out: Path) -> int:
    """Of the network of a finished training, and of what is trained beside it."""
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    networks = (saved["network"], saved["component"].get("critic", {"network": {}})["network"])
    return sum(tensor.numel() for network in networks for tensor in network.values())


def losses_in(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "progress.jsonl").read_text().splitlines()]


def train_all(parquet: Path, squeezenet: Path, teacher: Path, folder: Path, *, accumulate: int = 1) -> dict[str, Any]:
    """Trains each component; what this rank has seen and come to. `folder` gets the losses."""
    row_groups: list[int] = []
    lanes = data.LANE_ROWS
    data.LANE_ROWS = 20

    def opened(file: FaceFile) -> Any:
        return _Spy(file.open(), row_groups)

    files = [FaceFile(file.name, partial(opened, file)) for file in local_files(parquet)]
    faces = read_faces(files, SIZE, source="faces.parquet", batch_size=BATCH)
    data.LANE_ROWS = lanes
    digests = {}
    for name, make in KINDS.items():
        out = folder / name if ranks.rank() == 0 else folder / f"{name}-{ranks.rank()}"
        component = make(squeezenet, teacher)
        run = TrainingRun(
            "tiny", out, STEPS, accumulate=accumulate, precision="fp32", log_every=1, evaluate_every=1,
            checkpoint_minutes=0,
        )  # fmt: skip
        states: list[Any] = []
        component.after_step = _spied(component.after_step, states)  # type: ignore[method-assign]
        train(component, faces, run, lambda _: None)
        digests[name] = states
    return {"digests": digests, "bytes": sum(row_groups), "faces": len(faces.train), "described": faces.description}


def _spied(after_step: Callable[..., None], states: list[str]) -> Callable[..., None]:
    """Notes what the network is after each step, and what is trained beside it."""

    def call(network: Any, *others: Any) -> None:
        after_step(network, *others)
        digest = hashlib.sha256()
        for value in network.state_dict().values():
            digest.update(value.detach().contiguous().numpy().tobytes())
        states.append(digest.hexdigest())

    return call


class _Spy:
    """A file that counts the bytes read of it."""

    def __init__(self, file: Any, read: list[int]) -> None:
        self._file, self._read = file, read

    def read(self, *count: int) -> bytes:
        found: bytes = self._file.read(*count)
        self._read.append(len(found))
        return found

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def in_processes(count: int, folder: Path, *arguments: Any) -> list[dict[str, Any]]:
    """`train_all` in so many processes at once, as torchrun starts them; what each returned."""
    torch.multiprocessing.spawn(_process, (count, free_ports(1), folder, arguments), count)
    return [torch.load(folder / f"found-{rank}", weights_only=False) for rank in range(count)]


def _process(rank: int, count: int, port: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with ranks.joined("cpu"):
        torch.save(train_all(*arguments, folder), folder / f"found-{rank}")
