"""Training learns, resumes to the bit, and leaves weights that say what they are."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bfr_models.errors import BfrError, UsageError
from bfr_models.training.component import Component, Recipe
from bfr_models.training.data import Faces
from bfr_models.training.difface import Estimator, Prior
from bfr_models.training.draws import Draws
from bfr_models.training.loop import TrainingRun, learning_rate_at, train
from bfr_models.weights.tensors import load_weights


def quiet(line: str) -> None:
    pass


def metrics_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def trained(component: Component, faces: Faces, out: Path, steps: int) -> dict[str, Any]:
    train(component, faces, TrainingRun("tiny", out, steps=steps, evaluate_every=steps), quiet)
    return metrics_of(out)[-1]


def test_the_estimator_learns_to_restore(estimator: Estimator, faces: Faces, tmp_path: Path) -> None:
    measured = trained(estimator, faces, tmp_path, steps=120)
    assert measured["psnr"] > measured["psnr_lq"]


def test_the_prior_learns_to_tell_noise(prior: Prior, faces: Faces, tmp_path: Path) -> None:
    """Knowing nothing costs 1, give or take 0.015 for 9216 draws."""
    assert trained(prior, faces, tmp_path, steps=40)["eps_loss"] < 0.9


class TestResume:
    @pytest.fixture
    def undisturbed(self, component: Component, faces: Faces, tmp_path: Path) -> Path:
        train(component, faces, TrainingRun("tiny", tmp_path / "whole", steps=6, evaluate_every=2), quiet)
        return tmp_path / "whole"

    def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(
        self, component: Component, faces: Faces, undisturbed: Path, tmp_path: Path
    ) -> None:
        """Cut while it published step 4, which left a line of a step to come that was not finished."""
        out = tmp_path / "cut"

        def cut_at_step_4() -> None:
            if metrics_of(out)[-1]["step"] == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(component, faces, TrainingRun("tiny", out, steps=6, evaluate_every=2, publish=cut_at_step_4), quiet)
        with (out / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "psnr": 1.0}\n{"ste')
        torch.manual_seed(99)  # another process has other random numbers
        lines: list[str] = []
        train(component, faces, TrainingRun("tiny", out, steps=6, evaluate_every=2, resume=True), lines.append)
        assert lines[0] == "resuming at step 4"
        for file in ("tiny.safetensors", "tiny.json", "metrics.jsonl", "samples/step-0000006.png"):
            assert (out / file).read_bytes() == (undisturbed / file).read_bytes(), file

    def test_a_finished_run_is_left_as_it_is(self, component: Component, faces: Faces, undisturbed: Path) -> None:
        before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
        train(component, faces, TrainingRun("tiny", undisturbed, steps=6, resume=True), quiet)
        assert {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()} == before

    def test_without_resume_a_run_starts_anew(self, component: Component, faces: Faces, undisturbed: Path) -> None:
        train(component, faces, TrainingRun("tiny", undisturbed, steps=2, seed=1), quiet)
        assert [line["step"] for line in metrics_of(undisturbed)] == [2]


@pytest.mark.parametrize("log_every", [1, 100])
@pytest.mark.parametrize("lost", ["loss", "gradient"])
def test_a_training_that_diverges_ends_and_keeps_what_it_had(
    lost: str, log_every: int, estimator: Estimator, faces: Faces, tmp_path: Path
) -> None:
    """At step 4, when a checkpoint is due."""

    class Diverging(Estimator):
        def loss(self, network: Any, gt: torch.Tensor, lq: torch.Tensor, draws: Draws) -> torch.Tensor:
            found = super().loss(network, gt, lq, draws)
            if next(sound, None) is not None:
                return found
            # The square root's slope at 0 is infinite, and no number times 0.
            return found * math.nan if lost == "loss" else found + (0 * found).sqrt()

    sound = iter((1, 2, 3))  # steps
    estimator.__class__ = Diverging
    run = TrainingRun("tiny", tmp_path, steps=6, evaluate_every=2, log_every=log_every)
    with pytest.raises(BfrError, match=r"finite numbers, found others after step 4: .*--resume"):
        train(estimator, faces, run, quiet)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert [line["step"] for line in metrics_of(tmp_path)] == [2]
    network = estimator.build()
    load_weights(network, tmp_path / "tiny.safetensors")
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_another_seed_trains_another_network(component: Component, faces: Faces, tmp_path: Path) -> None:
    runs = [TrainingRun("tiny", tmp_path / str(seed), steps=1, batch_size=2, seed=seed) for seed in (0, 1)]
    one, other = (train(component, faces, run, quiet).read_bytes() for run in runs)
    assert one != other


def test_every_step_and_every_seed_draws_its_own_noise(estimator: Estimator, faces: Faces, tmp_path: Path) -> None:
    draws: list[float] = []

    class Spy(Estimator):
        def loss(self, network: Any, gt: torch.Tensor, lq: torch.Tensor, own: Draws) -> torch.Tensor:
            draws.append(float(own.uniform()))
            return super().loss(network, gt, lq, own)

    estimator.__class__ = Spy
    for seed in (0, 1):
        train(estimator, faces, TrainingRun("tiny", tmp_path, steps=3, batch_size=1, seed=seed), quiet)
    assert len(set(draws)) == 6


class TestResults:
    @pytest.fixture
    def out(self, component: Component, faces: Faces, tmp_path: Path) -> Path:
        train(component, faces, TrainingRun("tiny", tmp_path, steps=3, evaluate_every=2, log_every=1, seed=5), quiet)
        return tmp_path

    def test_the_weights_are_the_moving_average_in_fp16(self, component: Component, out: Path) -> None:
        loaded = component.build()
        load_weights(loaded, out / "tiny.safetensors")
        ema = torch.load(out / "checkpoint.pt", weights_only=True)["ema"]
        for name, parameter in loaded.named_parameters():
            assert torch.equal(parameter, ema[f"module.{name}"].half().float()), name

    def test_the_card_says_how_the_weights_were_made(self, component: Component, faces: Faces, out: Path) -> None:
        card = json.loads((out / "tiny.json").read_text())
        data = (out / "tiny.safetensors").read_bytes()
        recipe = json.loads(json.dumps(asdict(component.recipe) | {"steps": 3}))
        assert card == {
            "name": "tiny",
            "parameters": sum(p.numel() for p in component.build().parameters()),
            "data": {"dataset": "portraits.parquet", "train": len(faces.train), "held_out": len(faces.held_out)},
            "recipe": recipe,
            "steps": 3,
            "held_out": {key: value for key, value in metrics_of(out)[-1].items() if key != "step"},
            "curve": {key: pytest.approx([m[key] for m in metrics_of(out)], rel=1e-5) for key in metrics_of(out)[-1]},
            "seed": 5,
            "file": "tiny.safetensors",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def test_metrics_and_samples_come_with_every_evaluation_and_the_last_step(self, faces: Faces, out: Path) -> None:
        assert [line["step"] for line in metrics_of(out)] == [2, 3]
        assert all(math.isfinite(value) for line in metrics_of(out) for value in line.values())
        samples = sorted((out / "samples").iterdir())
        assert [path.name for path in samples] == ["step-0000002.png", "step-0000003.png"]
        assert Image.open(samples[-1]).size == (3 * 32, len(faces.held_out) * 32)


def test_tensorboard_has_both_curves_where_it_is_installed(prior: Prior, faces: Faces, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(prior, faces, TrainingRun("tiny", tmp_path, steps=2, batch_size=2, evaluate_every=2, log_every=1), quiet)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert events.Scalars("held_out/eps_loss")[0].value == pytest.approx(metrics_of(tmp_path)[0]["eps_loss"])


def test_the_moving_average_forgets_faster_at_first(component: Component, faces: Faces, tmp_path: Path) -> None:
    """After the n-th step it keeps min(ema, (1 + n) / (10 + n)) of itself; the first step is copied."""
    averages, networks = [], []

    def record() -> None:
        saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        name = next(iter(saved["network"]))
        averages.append(saved["ema"][f"module.{name}"].double())
        networks.append(saved["network"][name].double())

    run = TrainingRun("tiny", tmp_path, steps=4, batch_size=2, learning_rate=0.05, evaluate_every=1, publish=record)
    train(component, faces, run, quiet)
    assert torch.equal(averages[0], networks[0])
    for n in (1, 2, 3):
        kept = (1 + n) / (10 + n)
        expected = kept * averages[n - 1] + (1 - kept) * networks[n]
        torch.testing.assert_close(averages[n], expected, rtol=1e-6, atol=1e-7)  # float32 once


def test_gradients_are_clipped(component: Component, faces: Faces, tmp_path: Path) -> None:
    """Adam divides by |g| + 1e-8, so a gradient of norm 1e-12 moves a weight by 1e-4 of the rate at most."""
    component.recipe = replace(component.recipe, clip=1e-12, warmup=1)
    train(component, faces, TrainingRun("tiny", tmp_path, steps=1, batch_size=2, learning_rate=1.0), quiet)
    torch.manual_seed(0)
    trained = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    for name, start in component.build().named_parameters():
        torch.testing.assert_close(trained[name], start.detach(), rtol=0, atol=1.1e-4)


class TestLearningRate:
    RECIPE = Recipe(32, (), steps=1000, learning_rate=1.0, warmup=100, decay=0.25)

    @pytest.mark.parametrize(
        ("step", "rate"), [(0, 0.01), (49, 0.5), (99, 1.0), (400, 1.0), (750, 1.0), (875, 0.5), (999, 0.004)]
    )
    def test_it_warms_up_stays_and_decays(self, step: int, rate: float) -> None:
        assert learning_rate_at(step, self.RECIPE) == pytest.approx(rate)

    @given(st.integers(1, 50), st.integers(1, 300), st.floats(0, 1))
    def test_it_is_never_zero_nor_above_the_recipes_and_falls_once(self, steps: int, warmup: int, decay: float) -> None:
        recipe = Recipe(32, (), steps=steps, learning_rate=3e-4, warmup=warmup, decay=decay)
        rates = np.array([learning_rate_at(step, recipe) for step in range(steps)])
        assert (rates > 0).all() and (rates <= 3e-4).all()
        change, peak = np.diff(rates), int(rates.argmax())
        assert (change[:peak] >= 0).all() and (change[peak:] <= 0).all()


class TestRun:
    def test_it_changes_the_recipe_only_where_asked(self) -> None:
        base = Recipe(32, ("gfpgan",), steps=1000)
        assert TrainingRun("x", Path()).recipe(base) == base
        changed = TrainingRun("x", Path(), steps=5, learning_rate=0.1).recipe(base)
        assert (changed.steps, changed.learning_rate, changed.batch_size) == (5, 0.1, base.batch_size)

    @pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "evaluate_every", "log_every"])
    def test_nothing_to_do_is_a_mistake(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"expected {name} above 0, got 0"):
            TrainingRun("x", Path(), **{name: 0})
