"""The one training loop: mixed precision, EMA, warm-up / constant / decay, checkpoints, held-out metrics, sample grids.

It runs on every rank (`bfr_models.training.ranks`); each takes an equal share of every batch. What a step sees and
draws depends on (seed, step) alone, so that a run gives the same curve on one rank and on many, in one piece and
resumed; but for rounding, since sums over a batch are then added up in another order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bfr_models.device import trains_in_bf16
from bfr_models.errors import BfrError, UsageError
from bfr_models.training import ranks
from bfr_models.training.component import Component, Recipe
from bfr_models.training.data import Faces, FaceStream, fixed_pairs
from bfr_models.training.draws import Draws
from bfr_models.training.results import CHECKPOINT, Results
from bfr_models.training.state import State

PREPARATION_FACES = 256  # that `prepare` may look at before the first step


@dataclass(frozen=True)
class TrainingRun:
    """Where, how long and on what; the recipe itself comes with the component."""

    name: str  # of the weight file, without suffix
    out: Path
    steps: int | None = None  # None: the recipe's
    batch_size: int | None = None  # of all ranks together
    learning_rate: float | None = None
    accumulate: int = 1  # parts, one after the other, that a rank takes its share of a batch in
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: str = "cpu"
    loaders: int = 0  # processes that prepare batches
    initial: Path | None = None  # weights to start from
    seed: int = 0
    resume: bool = False
    log_every: int = 20
    evaluate_every: int = 500
    checkpoint_minutes: float = 10.0  # between two checkpoints; each evaluation makes one, too
    compile: bool = False
    publish: Callable[[], None] = lambda: None  # called whenever `out` holds new results

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "accumulate", "log_every", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"expected {name} above 0, got {value}")

    def recipe(self, base: Recipe) -> Recipe:
        """The component's recipe with this run's changes."""
        changes = {name: getattr(self, name) for name in ("steps", "batch_size", "learning_rate")}
        return replace(base, **{name: value for name, value in changes.items() if value is not None})


def require_equal_shares(batch_size: int, workers: int, accumulate: int) -> None:
    """UsageError if some part of some rank's share would be larger than another."""
    if batch_size % (workers * accumulate):
        raise UsageError(
            f"expected a batch of as many faces in each part of each share, {workers} x {accumulate} in all, got "
            f"{batch_size}; give --batch-size a multiple of {workers * accumulate}"
        )


def train(component: Component, faces: Faces, run: TrainingRun, log: Callable[[str], None] = print) -> Path:
    """Trains to the recipe's last step and returns the weight file (EMA, fp16 safetensors, with a card).

    `run.out` of the first rank gets what `bfr_models.training.results` lists, renewed at every evaluation, so that a
    run that is cut still leaves something; `resume` goes on from its checkpoint, which every rank has to find there.
    """
    recipe = run.recipe(component.recipe)
    require_equal_shares(recipe.batch_size, ranks.count(), run.accumulate)
    run.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)
    measured, _ = fixed_pairs(faces.first_lane[:PREPARATION_FACES], recipe.size, ())
    state = State(component, run.device, run.initial, measured)
    if run.resume and (run.out / CHECKPOINT).exists():
        state.load(run.out / CHECKPOINT, run.device)
        log(f"resuming at step {state.step}")
    if len(set(ranks.everyones(state.step))) > 1:
        raise BfrError("expected one checkpoint on all workers, found several; run the same command again")
    _Training(component, faces, run, recipe, state, log).to_the_end()
    return run.out / f"{run.name}.safetensors"


@dataclass
class _Training:
    component: Component
    faces: Faces
    run: TrainingRun
    recipe: Recipe
    state: State
    log: Callable[[str], None]
    results: Results | None = None  # of the first rank
    losses: list[Tensor] = field(default_factory=list)  # of the steps since the last line
    line_at: float = 0.0
    saved_at: float = 0.0

    def to_the_end(self) -> None:
        run, recipe, state = self.run, self.recipe, self.state
        if ranks.rank() == 0:
            self.results = Results(run.out, run.name, state.step)
            held_out = fixed_pairs(self.faces.held_out, recipe.size, recipe.degradations)
        forward: nn.Module = torch.compile(state.parallel) if run.compile else state.parallel  # type: ignore[assignment]
        self.line_at = self.saved_at = time.monotonic()
        parts = self._parts()
        while state.step < recipe.steps:
            self.losses.append(self._step(forward, parts))
            if state.step % run.log_every == 0:
                self._line()
            if self.results is None:
                continue
            if state.step % run.evaluate_every == 0 or state.step == recipe.steps:
                self._evaluate(self.results, *held_out)
            elif time.monotonic() - self.saved_at > 60 * run.checkpoint_minutes:
                self._save()

    def _step(self, forward: nn.Module, parts: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        run, state, recipe = self.run, self.state, self.recipe
        learning_rate = learning_rate_at(state.step, recipe)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        state.optimizer.zero_grad(set_to_none=True)
        forward.train()
        device = torch.device(run.device)
        total = torch.zeros((), device=device)
        for part in range(run.accumulate):
            gt, lq = (x.to(device, memory_format=torch.channels_last) for x in next(parts))
            draws = Draws(run.seed, state.step, self._of_part(part), recipe.batch_size, device)
            with ranks.part(forward, is_last=part == run.accumulate - 1):
                with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bf16(run.device, run.precision)):
                    loss = self.component.loss(forward, gt, lq, draws) / run.accumulate
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip)
        state.optimizer.step()
        state.ema.update_parameters(state.network)
        draws = Draws(run.seed, state.step, self._share, recipe.batch_size, device)
        self.component.after_step(state.network, learning_rate, draws)
        state.step += 1
        return total

    @property
    def _share(self) -> range:
        """The faces of a batch that are this rank's."""
        size = self.recipe.batch_size // ranks.count()
        return range(ranks.rank() * size, (ranks.rank() + 1) * size)

    def _of_part(self, part: int) -> range:
        size = len(self._share) // self.run.accumulate
        return self._share[part * size : (part + 1) * size]

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(gt, lq) of every part of this rank's share of every step that is left."""
        run, recipe, faces = self.run, self.recipe, self.faces
        stream = FaceStream(
            faces.train, recipe.size, recipe.degradations, recipe.augmentation, run.seed,
            recipe.steps * recipe.batch_size, faces.lanes,
        )  # fmt: skip
        items = (
            [step * recipe.batch_size + face for face in self._of_part(part)]
            for step in range(self.state.step, recipe.steps)
            for part in range(run.accumulate)
        )
        return iter(DataLoader(stream, batch_sampler=items, num_workers=run.loaders))

    def _line(self) -> None:
        """How training goes, of all ranks together."""
        self._require_finite()
        step, recipe = self.state.step, self.recipe
        loss = float(ranks.mean(torch.stack(self.losses).mean()))
        rate = len(self.losses) * recipe.batch_size / (time.monotonic() - self.line_at)
        self.losses.clear()
        self.line_at = time.monotonic()
        if self.results is not None:
            self.log(f"step {step}/{recipe.steps}  loss {loss:.5f}  {rate:.1f} faces/s")
            figures = {"loss": loss, "learning_rate": learning_rate_at(step - 1, recipe), "faces_per_second": rate}
            self.results.progress(step, figures)

    def _evaluate(self, results: Results, gt: Tensor, lq: Tensor) -> None:
        self._require_finite()
        gt, lq = (x.to(self.run.device, memory_format=torch.channels_last) for x in (gt, lq))
        metrics = results.evaluate(self.state, gt, lq)
        self.log(f"step {self.state.step}  held out: " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        results.export(self.recipe, self.faces, self.state, metrics, self.run.seed)
        self._save()

    def _save(self) -> None:
        self._require_finite()
        self.state.save(self.run.out / CHECKPOINT)
        self.run.publish()
        self.line_at = self.saved_at = time.monotonic()

    def _require_finite(self) -> None:
        """BfrError once the network is lost: before it takes the place of what was kept."""
        if not self.state.is_finite:
            raise BfrError(
                f"expected a network of finite numbers, found others after step {self.state.step}: the training has "
                "diverged; the last checkpoint is from before: go on there with --resume and a smaller --learning-rate"
            )


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, constant, then linear to 0 over the last `decay` share of the steps.

    Constant in the middle so that a run can be extended without having been planned longer.
    """
    warmup = min(1.0, (step + 1) / recipe.warmup)
    decay = min(1.0, (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps))
    return recipe.learning_rate * min(warmup, decay)
