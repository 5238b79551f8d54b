"""The one training loop: bf16, EMA, warm-up / constant / decay, checkpoints, held-out metrics, sample grids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset

from bfr_models.errors import UsageError
from bfr_models.pixels import to_uint8
from bfr_models.training.component import Component, Recipe
from bfr_models.training.data import Faces, FaceStream, fixed_pairs
from bfr_models.weights.tensors import parameters_of, save_weights

PREVIEW_FACES = 6
PREPARATION_FACES = 256  # that `prepare` may look at before the first step


@dataclass(frozen=True)
class TrainingRun:
    """Where, how long and on what; the recipe itself comes with the component."""

    name: str  # of the weight file, without suffix
    out: Path
    steps: int | None = None  # None: the recipe's
    batch_size: int | None = None
    learning_rate: float | None = None
    device: str = "cpu"
    workers: int = 0
    initial: Path | None = None  # weights to start from
    seed: int = 0
    resume: bool = False
    log_every: int = 20
    evaluate_every: int = 500
    compile: bool = False
    publish: Callable[[], None] = lambda: None  # called whenever `out` holds new results

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "log_every", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"expected {name} above 0, got {value}")

    def recipe(self, base: Recipe) -> Recipe:
        """The component's recipe with this run's changes."""
        changes = {name: getattr(self, name) for name in ("steps", "batch_size", "learning_rate")}
        return replace(base, **{name: value for name, value in changes.items() if value is not None})


class _State:
    """Everything a checkpoint holds."""

    def __init__(self, component: Component, device: str, initial: Path | None, gt: Tensor) -> None:
        network = component.build().to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            component.prepare(self.network, gt.to(device, memory_format=torch.channels_last))
        if initial is not None:
            component.initialise(self.network, initial)
        self.component = component
        self.ema = AveragedModel(self.network, avg_fn=_ema(component.recipe.ema))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
        self.step = 0

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "component": self.component.state_dict(),
                "step": self.step,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path, device: str) -> None:
        saved = torch.load(path, map_location=device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.component.load_state_dict(saved.get("component", {}))
        self.step = saved["step"]


def train(component: Component, faces: Faces, run: TrainingRun, log: Callable[[str], None] = print) -> Path:
    """Trains to the recipe's last step and returns the weight file (EMA, fp16 safetensors, with a card).

    `run.out` gets checkpoint.pt, metrics.jsonl, samples/*.png and the weights, all renewed at every
    evaluation, so that a run that is cut still leaves something; `resume` goes on from there.
    """
    recipe = run.recipe(component.recipe)
    run.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)
    measured, _ = fixed_pairs(faces.train[:PREPARATION_FACES], recipe.size, ())
    state = _State(component, run.device, run.initial, measured)
    checkpoint = run.out / "checkpoint.pt"
    if run.resume and checkpoint.exists():
        state.load(checkpoint, run.device)
        log(f"resuming at step {state.step}")
    _forget_metrics_after(state.step, run.out / "metrics.jsonl")
    forward: nn.Module = torch.compile(state.network) if run.compile else state.network  # type: ignore[assignment]
    held_out = fixed_pairs(faces.held_out, recipe.size, recipe.degradations)
    started, losses = time.monotonic(), []
    for gt, lq in _batches(faces, recipe, run, state.step):
        torch.manual_seed(_step_seed(run.seed, state.step))  # the loss's own draws: the same after a resume
        losses.append(_step(forward, state, recipe, gt, lq, run.device))
        if state.step % run.log_every == 0:
            rate = len(losses) * recipe.batch_size / (time.monotonic() - started)
            mean = sum(losses) / len(losses)
            log(f"step {state.step}/{recipe.steps}  loss {mean:.5f}  {rate:.1f} faces/s")
            started, losses = time.monotonic(), []
        if state.step % run.evaluate_every == 0 or state.step == recipe.steps:
            metrics = _evaluate(state, held_out, run)
            log(f"step {state.step}  held out: " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
            state.save(checkpoint)
            _export(recipe, faces, state, metrics, run)
            run.publish()
            started = time.monotonic()
    return run.out / f"{run.name}.safetensors"


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, constant, then linear to 0 over the last `decay` share of the steps.

    Constant in the middle so that a run can be extended without having been planned longer.
    """
    warmup = min(1.0, (step + 1) / recipe.warmup)
    decay = min(1.0, (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps))
    return recipe.learning_rate * min(warmup, decay)


def _step_seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


def _step(forward: nn.Module, state: _State, recipe: Recipe, gt: Tensor, lq: Tensor, device: str) -> float:
    learning_rate = learning_rate_at(state.step, recipe)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    gt, lq = (x.to(device, memory_format=torch.channels_last) for x in (gt, lq))
    forward.train()
    with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16):
        loss = state.component.loss(forward, gt, lq)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip)
    state.optimizer.step()
    state.ema.update_parameters(state.network)
    state.component.after_step(state.network, learning_rate)
    state.step += 1
    return float(loss.detach())


def _batches(faces: Faces, recipe: Recipe, run: TrainingRun, step: int) -> DataLoader[tuple[Tensor, Tensor]]:
    stream = FaceStream(
        faces.train, recipe.size, recipe.degradations, recipe.augmentation, run.seed, recipe.steps * recipe.batch_size
    )
    rest = Subset(stream, range(step * recipe.batch_size, len(stream)))
    return DataLoader(rest, recipe.batch_size, num_workers=run.workers, persistent_workers=run.workers > 0)


@torch.no_grad()
def _evaluate(state: _State, held_out: tuple[Tensor, Tensor], run: TrainingRun) -> dict[str, float]:
    network = state.ema.module.eval()
    gt, lq = (x.to(run.device, memory_format=torch.channels_last) for x in held_out)
    metrics = state.component.evaluate(network, gt, lq)
    with (run.out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": state.step, **metrics}) + "\n")
    columns = state.component.preview(network, gt[:PREVIEW_FACES], lq[:PREVIEW_FACES])
    grid = torch.cat([torch.cat(list(column.cpu()), dim=1) for column in columns], dim=2)
    (run.out / "samples").mkdir(exist_ok=True)
    Image.fromarray(to_uint8(grid)).save(run.out / "samples" / f"step-{state.step:07d}.png")
    return metrics


def _forget_metrics_after(step: int, path: Path) -> None:
    """Drops the lines that this run will compute again, and a last one that was cut while being written."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


def _export(recipe: Recipe, faces: Faces, state: _State, metrics: dict[str, float], run: TrainingRun) -> None:
    card = {
        "name": run.name,
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "data": faces.description,
        "recipe": asdict(recipe),
        "steps": state.step,
        "held_out": metrics,
        "curve": _curve(run.out / "metrics.jsonl"),
        "seed": run.seed,
        **state.component.provenance(),
    }
    save_weights(parameters_of(state.ema.module), card, run.out / f"{run.name}.safetensors")


def _curve(path: Path) -> dict[str, list[float]]:
    """The held-out metrics of every evaluation, by name; six digits are enough to look at."""
    evaluations = [json.loads(line) for line in path.read_text().splitlines()]
    return {name: [float(f"{found[name]:.6g}") for found in evaluations] for name in evaluations[-1]}


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An average that forgets faster at first: min(decay, (1 + n) / (10 + n))."""

    def average(averaged: Tensor, current: Tensor, n: Tensor | int) -> Tensor:
        rate = min(decay, (1 + int(n)) / (10 + int(n)))
        return torch.lerp(current, averaged, rate) if averaged.is_floating_point() else current

    return average
