"""Trains small networks side by side, with nothing to wait for: a short training, for a GPU at hand for minutes.

    python -m bfr_models.training.short_training --pack FACES --data packed.parquet        once, before
    python -m bfr_models.training.short_training --data packed.parquet --out OUT --minutes 10 --device cuda

Needs torch, pyarrow, safetensors, Pillow and diffusers alone. Each component is a process of its own, since a small
network leaves a large card idle. The faces lie on the device as uint8, and are augmented and degraded there in batches;
nothing in the loop waits for the device. Every two minutes and at the end each process leaves its average in OUT, in
half precision with a card, as `bfr train` does: two files a component. The same command goes on from them, with fresh
moments of the optimiser: these would take three times the room. It ends by itself, within a minute of --minutes.

Losses, networks, recipes are those of `bfr_models.training.registry`, but for what is changed here: batch, steps,
rate, no ageing, and random numbers per batch instead of per face.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bfr_models.degradation.batched import BatchedDegradation
from bfr_models.degradation.presets import get_preset
from bfr_models.device import trains_in_bf16
from bfr_models.errors import BfrError, UsageError, exit_code_of, unknown
from bfr_models.training import registry
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights, Recipe
from bfr_models.training.device_faces import DeviceFaces, facts_of, pack
from bfr_models.training.draws import BatchDraws
from bfr_models.training.state import State
from bfr_models.weights.files import read_card
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights

COMPONENTS = ("difface/estimator_unet", "difface/prior", "diffbfr/irm_low", "diffbfr/flow")
PRESET, SIZE = "face128", 128
GRACE = 5.0  # seconds that the last checkpoint may take
OVERTIME = 60.0  # seconds after its end at which a process that hangs is killed
PREPARATION_FACES = 256


@dataclass(frozen=True)
class Settings:
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
    auxiliary: AuxiliaryWeights = NO_AUXILIARY  # of all components; each takes what its loss can use

    @property
    def name(self) -> str:
        """Of the weight file, as `bfr train` names it."""
        method, component = self.component.split("/")
        return f"{method}-{PRESET}-{component}"


@dataclass
class Training:
    """The state of one process, and its loop."""

    settings: Settings

    def __post_init__(self) -> None:
        settings = self.settings
        method, name = settings.component.split("/")
        auxiliary = settings.auxiliary.only(registry.COMPONENTS[method, name].auxiliary)
        self.component = registry.get_component(method, name, PRESET, auxiliary)
        self.recipe = _without_ageing(self.component.recipe, settings)
        recipe = self.recipe
        self.faces = DeviceFaces(settings.data, recipe.size, recipe.augmentation, settings.device)
        self.degradation = (
            BatchedDegradation(recipe.degradations, recipe.size, settings.device) if recipe.degradations else None
        )
        torch.manual_seed(settings.seed)
        measured = self.faces.views(min(PREPARATION_FACES, len(self.faces)), np.random.default_rng(settings.seed))
        self.state = State(self.component, settings.device, settings.initial, measured)
        self.curve: list[tuple[int, float]] = []
        self.first = 0
        self._resume()
        self.total = torch.zeros((), device=settings.device)  # of the losses since the last checkpoint
        self.since, self.saved_at = self.state.step, time.time()

    def _resume(self) -> None:
        """Goes on from the average that is in OUT, if one is."""
        weights = self.settings.out / f"{self.settings.name}.safetensors"
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
            if time.time() - self.saved_at > 60 * self.settings.checkpoint_minutes:
                self._save()
        if self.state.step > self.since:
            self._save()

    def _is_over(self) -> bool:
        settings, done = self.settings, self.state.step - self.first
        return time.time() > settings.ends_at - GRACE or (settings.steps is not None and done >= settings.steps)

    def _compiled(self) -> nn.Module:
        """The network, compiled if it can be: the first step tells, and its minute or more is part of the time."""
        network = self.state.network
        if not self.settings.compile:
            return network
        compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
        try:
            self._loss(compiled).backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # a compiler raises anything
            print(f"{self.settings.component}: not compiled: {type(error).__name__}: {error}"[:300], flush=True)
            return network
        return compiled

    def _loss(self, forward: nn.Module) -> Tensor:
        settings, step = self.settings, self.state.step
        draws = BatchDraws(settings.seed, step, settings.batch_size, settings.device)
        rng = np.random.default_rng((settings.seed, step))
        gt = self.faces.views(settings.batch_size, rng)
        lq = gt if self.degradation is None else self.degradation(gt, rng, draws.on_device)
        gt, lq = (x.contiguous(memory_format=torch.channels_last) for x in (gt, lq))
        bf16 = trains_in_bf16(settings.device, "auto")
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=bf16):
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
        draws = BatchDraws(self.settings.seed, state.step, self.settings.batch_size, self.settings.device)
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
        settings, done = self.settings, self.state.step - self.first
        left = (settings.ends_at - GRACE - time.time()) / (60 * settings.minutes)
        if settings.steps is not None:
            left = min(left, 1 - done / settings.steps)
        falling = min(1.0, max(0.0, left) / self.recipe.decay)
        return self.recipe.learning_rate * min(1.0, (done + 1) / self.recipe.warmup) * falling

    def _save(self) -> None:
        """The average and its card, whole files at any moment; the one place that waits for the device."""
        settings, state = self.settings, self.state
        if not state.is_finite:
            raise BfrError(
                f"expected a network of finite numbers, found others after step {state.step}: {settings.component} has "
                "diverged; what it left is from before: the same command goes on there, with a smaller --rate"
            )
        steps = state.step - self.since
        self.curve.append((state.step, float(self.total) / steps))
        seconds = time.time() - self.saved_at
        print(
            f"{settings.component}  step {state.step}  loss {self.curve[-1][1]:.5f}  "
            f"{steps * settings.batch_size / seconds:.0f} faces/s",
            flush=True,
        )
        card: dict[str, Any] = {
            "name": settings.name,
            "parameters": sum(p.numel() for p in state.network.parameters()),
            "data": self.faces.description,
            "recipe": asdict(self.recipe),
            "steps": state.step,
            "held_out": {},
            "curve": {"loss": self.curve},
            "seed": settings.seed,
            "trained_by": "bfr_models.training.short_training",
            **self.component.provenance(),
        }
        with tempfile.TemporaryDirectory(dir=settings.out, prefix=".") as folder:
            partial = Path(folder) / f"{settings.name}.safetensors"
            save_weights(parameters_of(state.ema.module), card, partial)
            for suffix in (".json", ".safetensors"):
                partial.with_suffix(suffix).replace(settings.out / f"{settings.name}{suffix}")
        self.total.zero_()
        self.since, self.saved_at = state.step, time.time()


def _without_ageing(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe as it is trained here; prints are aged on CPUs alone, so that their faces are GFPGAN's here."""
    degradations = tuple("gfpgan" if get_preset(name).aged else name for name in recipe.degradations)
    rate = recipe.learning_rate * settings.rate
    return replace(recipe, degradations=degradations, batch_size=settings.batch_size, learning_rate=rate)


def _pairs(given: list[str]) -> dict[str, Path]:
    """{component: file} of COMPONENT=FILE."""
    pairs = {}
    for pair in given:
        component, equals, file = pair.partition("=")
        if not (equals and file):
            raise UsageError(f"expected --initial COMPONENT=FILE, found {pair!r}")
        if component not in COMPONENTS:
            raise unknown("component of --initial", component, COMPONENTS)
        pairs[component] = Path(file)
    return pairs


def _side_by_side(arguments: argparse.Namespace, ends_at: float) -> int:
    """A process for each component, with this one's arguments; the number of those that failed."""
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--ends-at", str(ends_at), "--only"]
    started = {name: subprocess.Popen([*command, name]) for name in arguments.components}  # noqa: S603 - our own
    failed = []
    for name, process in started.items():
        try:
            code = process.wait(max(0.0, ends_at + OVERTIME - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        failed += [name] if code else []
    if failed:
        print(f"error: expected every component to be trained to the end, failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bfr_models.training.short_training", description=__doc__)
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
    parser.add_argument("--estimator", type=Path, help="the regression network that DiffBFR's chains start from")
    parser.add_argument("--irm-low", type=Path, help="DiffBFR's first model, to train its second behind it")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet 1.1's weights, for perceptual losses")
    parser.add_argument("--recogniser", type=Path, help="a MobileFace recogniser's weights, for the losses on identity")
    parser.add_argument("--only", choices=COMPONENTS, help=argparse.SUPPRESS)
    parser.add_argument("--ends-at", type=float, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    return exit_code_of(_run)


def _run() -> int:
    arguments = _parser().parse_args()
    a = dict(vars(arguments))
    packed, side, components, only = (a.pop(name) for name in ("pack", "side", "components", "only"))
    auxiliary = AuxiliaryWeights(**{each.name: a.pop(each.name) for each in fields(AuxiliaryWeights)})
    ends_at = a.pop("ends_at") or time.time() + 60 * arguments.minutes
    if packed is not None:
        print(f"{arguments.data}: {pack(packed, arguments.data, SIZE, side) / 2**20:.1f} MiB")
        return 0
    if arguments.out is None:
        raise UsageError("expected --out, a folder for the weights, found none")
    initial = _pairs(a.pop("initial"))
    facts_of(arguments.data)  # refused here, before any process starts
    arguments.out.mkdir(parents=True, exist_ok=True)
    if only is None:
        return min(1, _side_by_side(arguments, ends_at))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(components)))
    Training(Settings(only, ends_at=ends_at, initial=initial.get(only), auxiliary=auxiliary, **a)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
