"""Trains small networks side by side on one GPU for some minutes, with nothing to wait for: a drill for a short loan.

    python -m bfr_models.training.drill --pack FACES --data packed.parquet          once, before
    python -m bfr_models.training.drill --data packed.parquet --out OUT --minutes 10 --device cuda

Needs torch, pyarrow, safetensors, Pillow and diffusers alone. Each component is a process of its own, since a small
network leaves a large card idle. The faces lie on the device as uint8, and are augmented and degraded there in batches;
nothing in the loop waits for the device. Every two minutes and at the end each process leaves its average in OUT, in
half precision with a card, as `bfr train` does: two files a component. The same command goes on from them, with fresh
moments of the optimiser: these would take three times the room. It ends within --minutes by itself.

Losses, networks, recipes are those of `bfr_models.training.registry`, but for what the drill changes: batch, steps,
rate, no ageing, and random numbers per batch instead of per face.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bfr_models.degradation.batched import BatchedDegradation
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import BfrError, UsageError
from bfr_models.training.component import AuxiliaryWeights, Recipe
from bfr_models.training.device_faces import DeviceFaces, pack
from bfr_models.training.draws import BatchDraws
from bfr_models.training.registry import get_component
from bfr_models.training.state import State
from bfr_models.weights.files import read_card
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights

COMPONENTS = ("difface/estimator_unet", "difface/prior", "diffbfr/irm_low", "diffbfr/irm_high")
PRESET, SIZE = "face128", 128
GRACE = 5.0  # seconds that the last checkpoint may take
PREPARATION_FACES = 256


@dataclass(frozen=True)
class Drill:
    """What one process trains, on what, and for how long."""

    component: str  # method/component
    data: Path
    out: Path
    ends_at: float  # seconds since the epoch
    minutes: float
    steps: int | None = None  # at most, of this process
    batch_size: int = 256
    rate: float = 2.0  # times the recipe's, whose batch is some 16 times smaller
    device: str = "cuda"
    compile: bool = True
    seed: int = 0
    checkpoint_minutes: float = 2.0
    initial: Path | None = None
    irm_low: Path | None = None

    @property
    def name(self) -> str:
        """Of the weight file, as `bfr train` names it."""
        method, component = self.component.split("/")
        return f"{method}-{PRESET}-{component}"


@dataclass
class Training:
    """The state of one process, and its loop."""

    drill: Drill

    def __post_init__(self) -> None:
        drill = self.drill
        method, name = drill.component.split("/")
        self.component = get_component(method, name, PRESET, AuxiliaryWeights(irm_low=drill.irm_low))
        self.recipe = _without_ageing(self.component.recipe, drill)
        recipe = self.recipe
        self.faces = DeviceFaces(drill.data, recipe.size, recipe.augmentation, drill.device)
        self.degradation = (
            BatchedDegradation(recipe.degradations, recipe.size, drill.device) if recipe.degradations else None
        )
        torch.manual_seed(drill.seed)
        measured = self.faces.views(min(PREPARATION_FACES, len(self.faces)), np.random.default_rng(drill.seed))
        self.state = State(self.component, drill.device, drill.initial, measured)
        self.curve: list[tuple[int, float]] = []
        self.first = 0
        self._resume()
        self.total = torch.zeros((), device=drill.device)  # of the losses since the last checkpoint
        self.since, self.saved_at = self.state.step, time.time()

    def _resume(self) -> None:
        """Goes on from the average that is in OUT, if one is."""
        weights = self.drill.out / f"{self.drill.name}.safetensors"
        if not weights.exists():
            return
        card = read_card(weights)
        for network in (self.state.network, self.state.ema.module):
            load_weights(network, weights)
        self.first = self.state.step = card["steps"]
        self.curve = [(step, loss) for step, loss in card["curve"]["loss"]]
        if "steps" in self.component.state_dict():
            self.component.load_state_dict({"steps": self.first})

    def run(self) -> None:
        """Trains to the end of the time, or of the steps."""
        forward = self._compiled()
        while not self._is_over():
            self.total += self._step(forward)
            if time.time() - self.saved_at > 60 * self.drill.checkpoint_minutes:
                self._save()
        if self.state.step > self.since:
            self._save()

    def _is_over(self) -> bool:
        drill, done = self.drill, self.state.step - self.first
        return time.time() > drill.ends_at - GRACE or (drill.steps is not None and done >= drill.steps)

    def _compiled(self) -> nn.Module:
        """The network, compiled if it can be: the first step tells, and its minute or more is part of the time."""
        network = self.state.network
        if not self.drill.compile:
            return network
        compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
        try:
            self._loss(compiled).backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # a compiler raises anything
            print(f"{self.drill.component}: not compiled: {type(error).__name__}: {error}"[:300], flush=True)
            return network
        return compiled

    def _loss(self, forward: nn.Module) -> Tensor:
        drill, step = self.drill, self.state.step
        draws = BatchDraws(drill.seed, step, drill.batch_size, drill.device)
        rng = np.random.default_rng((drill.seed, step))
        gt = self.faces.views(drill.batch_size, rng)
        lq = gt if self.degradation is None else self.degradation(gt, rng, draws.on_device)
        gt, lq = (x.contiguous(memory_format=torch.channels_last) for x in (gt, lq))
        with torch.autocast(torch.device(drill.device).type, torch.bfloat16):
            return self.component.loss(forward, gt, lq, draws)

    def _step(self, forward: nn.Module) -> Tensor:
        state, rate = self.state, self._learning_rate()
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        forward.train()
        loss = self._loss(forward)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), self.recipe.clip)
        state.optimizer.step()
        self._average()
        draws = BatchDraws(self.drill.seed, state.step, self.drill.batch_size, self.drill.device)
        self.component.after_step(state.network, rate, draws)
        state.step += 1
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        """As `State`'s average, which asks the device how often it was called: here nothing may wait for it."""
        step, state = self.state.step, self.state
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(state.ema.module.parameters()), list(state.network.parameters()), 1 - decay)

    def _learning_rate(self) -> float:
        """Warm-up by steps, again after a resume, since the moments are new; then down to 0 with the time."""
        drill, done = self.drill, self.state.step - self.first
        left = (drill.ends_at - GRACE - time.time()) / (60 * drill.minutes)
        if drill.steps is not None:
            left = min(left, 1 - done / drill.steps)
        falling = min(1.0, max(0.0, left) / self.recipe.decay)
        return self.recipe.learning_rate * min(1.0, (done + 1) / self.recipe.warmup) * falling

    def _save(self) -> None:
        """The average and its card, whole files at any moment; the one place that waits for the device."""
        drill, state = self.drill, self.state
        steps = state.step - self.since
        self.curve.append((state.step, float(self.total) / steps))
        seconds = time.time() - self.saved_at
        print(
            f"{drill.component}  step {state.step}  loss {self.curve[-1][1]:.5f}  "
            f"{steps * drill.batch_size / seconds:.0f} faces/s",
            flush=True,
        )
        card: dict[str, Any] = {
            "name": drill.name,
            "parameters": sum(p.numel() for p in state.network.parameters()),
            "data": self.faces.description,
            "recipe": asdict(self.recipe),
            "steps": state.step,
            "held_out": {},
            "curve": {"loss": self.curve},
            "seed": drill.seed,
            "trained_by": "bfr_models.training.drill",
            **self.component.provenance(),
        }
        with tempfile.TemporaryDirectory(dir=drill.out, prefix=".") as folder:
            partial = Path(folder) / f"{drill.name}.safetensors"
            save_weights(parameters_of(state.ema.module), card, partial)
            for suffix in (".json", ".safetensors"):
                partial.with_suffix(suffix).replace(drill.out / f"{drill.name}{suffix}")
        self.total.zero_()
        self.since, self.saved_at = state.step, time.time()


def _without_ageing(recipe: Recipe, drill: Drill) -> Recipe:
    """The recipe as the drill trains it; prints are aged on CPUs alone, so that their faces are GFPGAN's here."""
    degradations = tuple("gfpgan" if get_preset(name).aged else name for name in recipe.degradations)
    rate = recipe.learning_rate * drill.rate
    return replace(recipe, degradations=degradations, batch_size=drill.batch_size, learning_rate=rate)


def _pairs(given: list[str]) -> dict[str, Path]:
    """{component: file} of COMPONENT=FILE."""
    return {component: Path(file) for component, _, file in (pair.partition("=") for pair in given)}


def _side_by_side(arguments: argparse.Namespace, ends_at: float) -> int:
    """A process for each component, with this one's arguments; the number of those that failed."""
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--ends-at", str(ends_at), "--only"]
    started = {name: subprocess.Popen([*command, name]) for name in arguments.components}  # noqa: S603 - our own
    failed = []
    for name, process in started.items():
        try:
            code = process.wait(max(0.0, ends_at - time.time()) + 60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        failed += [name] if code else []
    if failed:
        print(f"error: expected every component to be trained to the end, failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bfr_models.training.drill", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the packed faces")
    parser.add_argument("--pack", type=Path, metavar="FACES", help="make that file of these faces, and end")
    parser.add_argument("--side", type=int, default=192, help="of the packed faces, px")
    parser.add_argument("--out", type=Path, help="folder of the weights; what is there is gone on from")
    parser.add_argument("--minutes", type=float, default=10.0, help="all in all, start and end included")
    parser.add_argument("--steps", type=int, help="at most, of each component")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2.0, help="learning rate, in times the recipe's")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    parser.add_argument("--components", nargs="+", default=list(COMPONENTS), choices=COMPONENTS, metavar="COMPONENT")
    parser.add_argument("--initial", nargs="+", default=[], metavar="COMPONENT=FILE", help="weights to start from")
    parser.add_argument("--irm-low", type=Path, help="DiffBFR's first model, to train its second behind it")
    parser.add_argument("--only", choices=COMPONENTS, help=argparse.SUPPRESS)
    parser.add_argument("--ends-at", type=float, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    a = dict(vars(arguments))
    packed, side, components, only = (a.pop(name) for name in ("pack", "side", "components", "only"))
    ends_at = a.pop("ends_at") or time.time() + 60 * arguments.minutes
    try:
        if packed is not None:
            print(f"{arguments.data}: {pack(packed, arguments.data, SIZE, side) / 2**20:.1f} MiB")
            return 0
        if arguments.out is None:
            raise UsageError("expected --out, a folder for the weights, found none")
        arguments.out.mkdir(parents=True, exist_ok=True)
        if only is None:
            return min(1, _side_by_side(arguments, ends_at))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(components)))
        initial, irm_low = _pairs(a.pop("initial")).get(only), a.pop("irm_low") if only.endswith("high") else None
        a.pop("irm_low", None)
        Training(Drill(only, ends_at=ends_at, initial=initial, irm_low=irm_low, **a)).run()
    except BfrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
