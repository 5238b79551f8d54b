"""DifFace as the authors run it: 100 steps, noised at t = 400, first denoised at 396; our faster and older ways."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.methods import _loading
from bfr_models.methods.difface import chain_timesteps
from bfr_models.methods.difface_presets import DIFFACE, DifFaceOptions
from bfr_models.registry import load_method, methods, resolve_method
from bfr_models.training.registry import get_component
from bfr_models.types import FaceBatch
from tests.bfr_models.methods.conftest import SIZE, Tiny

Make = Callable[..., Tiny]


def faces(n: int, size: int = SIZE) -> FaceBatch:
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1
    return FaceBatch(tuple(str(i) for i in range(n)), images, tuple(range(n)))


def abar(t: int) -> float:
    """The product of 1 - beta_s up to t; nothing at all is left out at t = -1."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(t + 1))


def draws_of(batch: FaceBatch, count: int) -> list[Tensor]:
    """What each face's own generator gives, call by call."""
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
    shape = batch.images.shape[1:]
    return [torch.stack([torch.randn(shape, generator=g) for g in generators]).double() for _ in range(count)]


Step = Callable[[Tensor, Tensor, int, int, Tensor], Tensor]
"""(x, output of the prior, t, t_prev, noise) -> x_{t_prev}."""


@torch.inference_mode()
def reference(
    tiny: Tiny,
    batch: FaceBatch,
    start: int,
    calls: Sequence[int],
    step: Step,
    drawn: Callable[[FaceBatch, int], list[Tensor]] = draws_of,
) -> Tensor:
    """The authors' procedure in float64."""
    f = tiny.estimator(batch.images.double() / 2 + 0.5).clamp(0, 1)
    z, *draws = drawn(batch, 1 + len(calls))
    x = math.sqrt(abar(start)) * (2 * f - 1) + math.sqrt(1 - abar(start)) * z
    for t, t_prev, noise in zip(calls, [*calls[1:], -1], draws, strict=True):
        x = step(x, tiny.output(x, t), t, t_prev, noise)
    return x.clamp(-1, 1)


def draws_of_one_run(batch: FaceBatch, count: int) -> list[Tensor]:
    """What the authors' script draws: seeded once, then image by image, at every step of each."""
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        images = [[torch.randn_like(image[None]) for _ in range(count)] for image in batch.images]
    return [torch.cat(draws).double() for draws in zip(*images, strict=True)]


def predicted(x: Tensor, eps: Tensor, t: int) -> Tensor:
    return ((x - math.sqrt(1 - abar(t)) * eps) / math.sqrt(abar(t))).clamp(-1, 1)


def ddim(eta: float) -> Step:
    def step(x: Tensor, output: Tensor, t: int, t_prev: int, noise: Tensor) -> Tensor:
        eps = output[:, 0:3]
        sigma = eta * math.sqrt((1 - abar(t_prev)) / (1 - abar(t))) * math.sqrt(1 - abar(t) / abar(t_prev))
        direction = math.sqrt(1 - abar(t_prev) - sigma**2) * eps
        return math.sqrt(abar(t_prev)) * predicted(x, eps, t) + direction + (sigma * noise if t > 0 else 0)

    return step


def ancestral(x: Tensor, output: Tensor, t: int, t_prev: int, noise: Tensor) -> Tensor:
    beta = 1 - abar(t) / abar(t_prev)
    x_0 = predicted(x, output[:, 0:3], t)
    if t == 0:
        return x_0
    mean = (math.sqrt(abar(t_prev)) * beta * x_0 + math.sqrt(1 - beta) * (1 - abar(t_prev)) * x) / (1 - abar(t))
    share = (output[:, 3:6] + 1) / 2
    log_smallest, log_largest = math.log(beta * (1 - abar(t_prev)) / (1 - abar(t))), math.log(beta)
    return mean + torch.exp((share * log_largest + (1 - share) * log_smallest) / 2) * noise


class TestParity:
    @pytest.mark.parametrize("eta", [0.5, *(pytest.param(eta, marks=pytest.mark.long) for eta in (0.0, 1.0))])
    def test_the_default_is_the_authors_procedure(self, tiny: Make, eta: float) -> None:
        made, batch = tiny("ffhq512", eta=eta), faces(2)
        expected = reference(made, batch, 400, range(396, -1, -4), ddim(eta))
        assert expected.std() > 0.1
        restored = made.load().restore(batch).images
        np.testing.assert_allclose(restored.numpy(), expected.numpy(), rtol=0, atol=1e-5)

    @torch.inference_mode()
    def test_the_estimator_works_between_0_and_1_and_sees_the_overshoot_of_a_resize(self, tiny: Make) -> None:
        made, batch = tiny("ffhq512"), faces(2, 40)
        batch = batch.with_images(batch.images.sign())  # sharp edges overshoot
        y = F.interpolate(batch.images.double() / 2 + 0.5, (SIZE, SIZE), mode="bicubic", antialias=True)
        raw = made.estimator(y)
        assert (y < 0).any() and (raw < 0).any() and (raw > 1).any()
        estimator = load_method(replace(made.resolved, target="bfr_models.methods.estimator:Estimator"))
        expected = raw.clamp(0, 1) * 2 - 1
        np.testing.assert_allclose(estimator.restore(batch).images.numpy(), expected.numpy(), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("eta", [0.5, 0.0])  # without eta they draw all the same
    def test_with_their_seed_the_pictures_of_a_whole_folder_come_out(self, tiny: Make, eta: float) -> None:
        made, batch = tiny("ffhq512", noise="authors", steps=10, eta=eta), faces(4)
        expected = reference(made, batch, 400, range(360, -1, -40), ddim(eta), draws_of_one_run)
        restorer, turns = made.load(), replace(batch, seeds=(12345,) * 4, places=(0, 1, 2, 3))
        restored = restorer.restore(turns).images
        np.testing.assert_allclose(restored.numpy(), expected.numpy(), rtol=0, atol=1e-5)
        for place in (3, 1):  # any of them alone, later or earlier than the last
            alone = FaceBatch(("x",), batch.images[place : place + 1], (12345,), places=(place,))
            found = restorer.restore(alone).images[0]
            np.testing.assert_allclose(found.numpy(), expected[place].numpy(), rtol=0, atol=1e-5)

    def test_the_first_release_sampled_with_the_learned_variance(self, tiny: Make) -> None:
        made, batch = tiny("ffhq512", sampler="ancestral"), faces(2)
        calls = [round(999 * i / 249) for i in range(100)][::-1]
        assert calls[:2] + calls[-2:] == [397, 393, 4, 0]
        expected = reference(made, batch, 401, calls, ancestral)
        np.testing.assert_allclose(made.load().restore(batch).images.numpy(), expected.numpy(), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("sampler", ["ddim", "dpm++", "ancestral"])
    def test_a_face_does_not_depend_on_its_batch(self, tiny: Make, sampler: str) -> None:
        restorer, batch = tiny("ffhq512", sampler=sampler, steps=10).load(), faces(3)
        together = restorer.restore(batch).images
        for row in range(3):
            alone = FaceBatch(batch.ids[row : row + 1], batch.images[row : row + 1], batch.seeds[row : row + 1])
            torch.testing.assert_close(restorer.restore(alone).images[0], together[row], rtol=0, atol=1e-5)

    def test_few_steps_of_the_solver_come_closest_to_the_flow(self, tiny: Make) -> None:
        """Both tend to the same ODE's end as steps grow; that of many steps stands for it."""
        batch = faces(2)
        end, *approximations = (
            tiny("ffhq512", sampler=sampler, steps=steps, eta=0.0).load().restore(batch).images
            for sampler, steps in (("dpm++", 200), ("dpm++", 12), ("ddim", 12))
        )
        solver, ddim_ = ((approximation - end).square().mean() for approximation in approximations)
        assert solver < ddim_


class TestChain:
    @pytest.mark.parametrize(
        ("options", "start", "first_calls", "count"),
        [
            ({}, 400, [396, 392, 388], 100),
            ({"steps": 10}, 400, [396, 352, 308], 10),
            ({"start_gap": 0}, 400, [400, 396, 392], 100),
            ({"start_timestep": 200, "steps": 50}, 200, [196, 192, 188], 50),
            ({"sampler": "ancestral"}, 401, [397, 393, 389], 100),
            ({"sampler": "ancestral", "start_gap": 0}, 397, [397, 393, 389], 100),
            ({"sampler": "dpm++", "steps": 15}, 400, [396, 368, 339], 15),
        ],
    )
    def test_of_the_512_px_preset(
        self, options: dict[str, Any], start: int, first_calls: list[int], count: int
    ) -> None:
        defaults = {"start_timestep": 400, "steps": 100, "start_gap": 4}
        noised, calls = chain_timesteps(DifFaceOptions(**{**defaults, **options}))
        assert (noised, calls[:3], len(calls), calls[-1]) == (start, first_calls, count, 0)

    @pytest.mark.parametrize(
        ("preset", "start", "steps"),
        [("ffhq512", 400, n) for n in (100, 80, 50, 40, 25, 20, 16, 10)]
        + [("inpaint256", 480, n) for n in (120, 96, 60, 40)],
    )
    def test_fewer_steps_are_those_of_the_authors_respacing(
        self, tiny: Make, preset: str, start: int, steps: int
    ) -> None:
        """ddimR keeps every stride-th timestep of 1000; the noise is that of index `steps`, the calls are below it."""
        respaced = list(range(0, 1000, start // steps))
        noised, calls = chain_timesteps(tiny(preset, steps=steps).resolved.options)
        assert (noised, calls) == (respaced[steps], respaced[:steps][::-1]) and noised == start

    @pytest.mark.parametrize("respacing", [250, 125, 100, 50])
    def test_fewer_ancestral_steps_are_those_of_the_first_release(self, tiny: Make, respacing: int) -> None:
        respaced = [round(999 * i / (respacing - 1)) for i in range(respacing)]
        steps = respacing * 400 // 1000
        noised, calls = chain_timesteps(tiny("ffhq512", sampler="ancestral", steps=steps).resolved.options)
        assert (noised, calls) == (respaced[steps], respaced[:steps][::-1])

    @pytest.mark.parametrize(
        ("options", "gap"),
        [
            ({}, 4),
            ({"steps": 20, "start_gap": 4}, 4),  # given
            ({"steps": 20, "sampler": "dpm++"}, 4),  # not the authors'
            ({"steps": 9}, 4),
            ({"steps": 30}, 13),  # no whole stride
            ({"steps": 400}, 1),
            ({"start_timestep": 200}, 2),
        ],
    )
    def test_the_gap_follows_from_the_steps_unless_it_is_given(
        self, tiny: Make, options: dict[str, Any], gap: int
    ) -> None:
        found = tiny("ffhq512", **options).resolved.options
        assert found.start_gap == gap
        calls = chain_timesteps(found)[1]
        assert (calls[0], calls[-1], len(calls)) == (found.start_timestep - gap, 0, found.steps)

    def test_our_own_chains_have_no_gap_with_any_number_of_steps(self, tiny: Make) -> None:
        found = tiny("face128", sampler="ddim", steps=12).resolved.options
        assert found.start_gap == 0 and chain_timesteps(found)[1][0] == found.start_timestep

    def test_the_presets_have_the_authors_defaults(self) -> None:
        by_name = {preset.name: preset.options for preset in DIFFACE}
        assert list(by_name) == ["face128", "face256", "ffhq512", "ffhq512-mse", "inpaint256"]
        assert by_name["ffhq512"] == DifFaceOptions(
            precision="fp32", start_timestep=400, steps=100, sampler="ddim", eta=0.5, start_gap=4
        )
        noised, calls = chain_timesteps(by_name["inpaint256"])  # type: ignore[arg-type]
        assert (noised, calls[0], calls[-1], len(calls), by_name["inpaint256"].eta) == (480, 476, 0, 120, 1.0)  # type: ignore[attr-defined]
        noised, calls = chain_timesteps(by_name["face128"])  # type: ignore[arg-type]
        assert (noised, calls[0]) == (120, 120)

    def test_the_authors_noise_is_of_one_start_for_all_faces(self) -> None:
        with pytest.raises(UsageError, match="expected noise rows, found authors: the faces of face128 have starts"):
            resolve_method("difface", options={"noise": "authors"})
        own = {"noise": "authors", "cover": 0.0, "start_timestep": 20}
        assert resolve_method("difface", options=own).options.start_timestep == 20

    @pytest.mark.parametrize(
        ("preset", "options", "message"),
        [
            ("ffhq512", {"steps": 401}, r"expected steps in 1\.\.400 \(start_timestep - start_gap \+ 1\), got 401"),
            ("ffhq512", {"steps": 0}, r"expected steps in 1\.\.397 \(start_timestep - start_gap \+ 1\), got 0"),
            ("ffhq512", {"steps": 398, "start_gap": 4}, r"expected steps in 1\.\.397 "),
            ("ffhq512", {"start_gap": -1}, "expected start_gap >= 0, got -1"),
            ("ffhq512", {"start_timestep": 1000}, "expected start_timestep <= 999"),
            ("ffhq512", {"sampler": "ancestral", "steps": 5}, "expected steps >= 10 for the ancestral sampler, got 5"),
            ("ffhq512", {"compile": 1}, "expected option 'compile' of difface to be bool, got 1"),
            ("face128", {"sampler": "ancestral", "steps": 10}, "the prior of face128 learned no variance"),
        ],
    )
    def test_what_a_preset_cannot_do_is_refused(self, preset: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            resolve_method("difface", preset, options)


class TestSwitches:
    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_stays_close(self, tiny: Make, precision: str) -> None:
        batch = faces(2)
        full, half = (tiny("ffhq512", precision=p, steps=20).load().restore(batch).images for p in ("fp32", precision))
        assert half.dtype == torch.float32 and not torch.equal(full, half)
        assert (full - half).abs().mean() <= 4 / 255

    def test_compile_compiles_both_networks(self, tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        compiled = []
        monkeypatch.setattr(torch, "compile", lambda network: compiled.append(type(network).__name__) or network)
        monkeypatch.setattr(_loading, "require_cpp_compiler", lambda: None)  # nothing is compiled
        tiny("ffhq512").load()
        assert compiled == []
        tiny("ffhq512", compile=True).load()
        assert compiled == ["SwinIR", "UNet"]

    @pytest.mark.filterwarnings(
        "ignore:Dynamo detected a call to a `functools.lru_cache`"
    )  # diffusers asks for versions
    def test_compiled_networks_are_captured_whole_and_give_the_same_faces(
        self, tiny: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the capture that precedes any compiler, and an error where it would fall back to Python."""
        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="eager", fullgraph=True))
        monkeypatch.setattr(_loading, "require_cpp_compiler", lambda: None)
        batch = faces(2)
        for precision in ("fp32", "bf16"):
            plain, compiled = (
                tiny("ffhq512", compile=c, precision=precision, steps=2).load().restore(batch).images
                for c in (False, True)
            )
            torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)


def test_without_a_compiler_the_option_compile_says_what_to_install() -> None:
    """In a process of its own: torch looks for a compiler once."""
    code = (
        "from bfr_models.registry import load_method, resolve_method\n"
        "load_method(resolve_method('estimator', 'face128', {'compile': True}))"
    )
    environment = os.environ | {"CXX": "no-such-compiler", "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UsageError: expected a C++ compiler, which the option compile needs on a CPU, found none" in done.stderr


@pytest.mark.parametrize(
    ("method", "preset"), [("difface", "ffhq512"), ("estimator", "ffhq512"), ("difface", "inpaint256")]
)
def test_absent_weights_are_a_usage_error_and_the_preset_is_still_listed(
    method: str, preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    assert preset in [p.name for p in methods()[method].presets]
    with pytest.raises(UsageError, match=f"expected the weights difface-{preset}-estimator in the package"):
        resolve_method(method, preset)


def test_the_prior_of_inpainting_is_not_trained_here() -> None:
    with pytest.raises(UsageError, match="unknown preset of difface"):
        get_component("difface", "prior", "inpaint256")
