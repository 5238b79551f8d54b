"""CLR-Face's components: what their losses are made of, and that each trains, resumes and names its sources."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bfr_models.errors import UsageError
from bfr_models.networks.latent_networks import LatentScore
from bfr_models.networks.mobile_face import crop_from_ffhq
from bfr_models.networks.vqgan import VQGAN
from bfr_models.training.clr_face import Autoencoder, _balance
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights, Component
from bfr_models.training.data import Faces
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.patch_discriminator import DiscriminatorTrainer
from bfr_models.training.registry import build_component
from bfr_models.weights.files import read_card
from bfr_models.weights.tensors import load_weights
from tests.clr_face import SEES_ESTIMATE, SIZE, TINY
from tests.draws import draws_of

EXACT = "donot_use_mm_for_euclid_dist"


def quiet(line: str) -> None:
    pass


def made(name: str, auxiliary: AuxiliaryWeights = NO_AUXILIARY) -> Any:
    return build_component("clr_face", name, TINY, auxiliary)


def small(component: Any) -> Any:
    component.recipe = replace(component.recipe, batch_size=3, warmup=2)
    return component


def autoencoder(gan_from: int = 2) -> Autoencoder:
    component: Autoencoder = small(made("vqgan"))
    component.weights = replace(component.weights, gan_from=gan_from)
    return component


def run(component: Component, faces: Faces, out: Path, name: str = "tiny", **changes: Any) -> dict[str, Any]:
    changes = {"steps": 4, "evaluate_every": 2, **changes}
    train(component, faces, TrainingRun(name, out, **changes), quiet)
    metrics: dict[str, Any] = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, faces: Faces, teacher: Path) -> Iterator[Path]:
    """The weights of those parts that the others look through."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BFR_WEIGHTS", str(folder))
        parts: dict[str, Component] = {
            "vqgan": autoencoder(),
            "irn": small(made("irn")),
            "recogniser": small(made("recogniser", AuxiliaryWeights(recogniser=teacher))),
            "score": small(made("score")),
        }
        for name, component in parts.items():
            out = folder / f"run-{name}"
            run(component, faces, out, TINY.weights[name], steps=2)
            for file in out.glob(f"{TINY.weights[name]}.*"):
                shutil.copy(file, folder)
        yield folder


class TestAutoencoder:
    def test_it_learns_and_reports_its_codes(self, faces: Faces, tmp_path: Path) -> None:
        component = autoencoder(gan_from=20)
        first = run(component, faces, tmp_path / "short", steps=1)
        component.recipe = replace(component.recipe, batch_size=8, learning_rate=3e-3, ema=0.5)
        metrics = run(component, faces, tmp_path / "long", steps=30, evaluate_every=30)
        assert metrics["psnr"] > first["psnr"] + 2
        assert 1 <= metrics["perplexity"] <= TINY.vqgan.codes and 0 < metrics["codes_used"] <= 1

    def test_the_first_codes_are_latents(self) -> None:
        component, gt = autoencoder(), torch.rand(20, 3, SIZE, SIZE) * 2 - 1
        network = component.build()
        with torch.no_grad():
            component.prepare(network, gt)
            latents = network.encode(gt).movedim(1, -1).flatten(0, -2)  # type: ignore[operator]
        assert torch.cdist(network.codebook.detach(), latents, compute_mode=EXACT).min(1).values.max() < 1e-4  # type: ignore[operator, union-attr]

    def test_a_code_that_nothing_comes_near_is_revived_where_latents_are(self) -> None:
        """After IDLE_STEPS steps, not before, and not while the learning rate falls."""
        component, gt = autoencoder(gan_from=10**9), torch.rand(4, 3, SIZE, SIZE) * 2 - 1
        network = component.build()
        assert isinstance(network, VQGAN)
        with torch.no_grad():
            component.prepare(network, gt)
            network.codebook[:5] = 100.0
        far = network.codebook.detach()[:5].clone()

        def steps(*rates: float) -> None:
            for rate in rates:
                component.loss(network, gt, gt, draws_of(4))
                component.after_step(network, rate, draws_of(4))

        steps(*[1e-3] * (component.IDLE_STEPS - 1))
        assert torch.equal(network.codebook[:5], far)
        steps(9e-4, 8e-4)
        assert torch.equal(network.codebook[:5], far)
        with torch.no_grad():
            assert component.evaluate(network, gt, gt)["codes_dead"] >= 5 / TINY.vqgan.codes
        steps(8e-4)
        assert network.codebook[:5].abs().max() < 10
        with torch.no_grad():
            assert component.evaluate(network, gt, gt)["codes_dead"] == 0

    def test_a_cut_run_resumes_to_the_bit_with_its_discriminator(self, faces: Faces, tmp_path: Path) -> None:
        run(autoencoder(), faces, tmp_path / "whole", steps=6)
        cut = tmp_path / "cut"

        def stop_at_4() -> None:
            if json.loads((cut / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(autoencoder(), faces, cut, steps=6, publish=stop_at_4)
        torch.manual_seed(99)
        run(autoencoder(), faces, cut, steps=6, resume=True)
        for file in ("tiny.safetensors", "metrics.jsonl"):
            assert (cut / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
        states = [torch.load(d / "checkpoint.pt", weights_only=True)["component"] for d in (tmp_path / "whole", cut)]
        assert states[0]["steps"] == 6
        for one, other in zip(*(s["critic"]["network"].values() for s in states), strict=True):
            assert torch.equal(one, other)

    def test_the_discriminator_is_used_from_its_step_on(self, faces: Faces, tmp_path: Path) -> None:
        """Until then it is as it was made; from then on the generator trains otherwise."""
        with_critic, without = (run(autoencoder(n), faces, tmp_path / str(n)) for n in (2, 100))
        assert with_critic["psnr"] != without["psnr"]

    def test_the_balance_makes_gradients_equally_long(self) -> None:
        image = torch.randn(2, 3, 8, 8, requires_grad=True)
        loss, other = (image - 1).abs().mean(), 1e-3 * image.pow(3).mean()
        factor = _balance(loss, other, image)
        lengths = [torch.autograd.grad(x, image, retain_graph=True)[0].norm() for x in (loss, factor * other)]
        torch.testing.assert_close(lengths[0], lengths[1])


class TestDiscriminatorTrainer:
    def test_it_learns_to_tell_and_what_it_judges_gets_the_gradient(self) -> None:
        torch.manual_seed(0)
        critic = DiscriminatorTrainer(torch.device("cpu"), channels=8)
        real, made = torch.rand(4, 3, 32, 32), -torch.rand(4, 3, 32, 32)
        for _ in range(20):
            critic.learn(real, made, 1e-3)
        assert critic.realness(real) > critic.realness(made)
        image = made.clone().requires_grad_()
        before = {name: p.clone() for name, p in critic.network.named_parameters()}
        (-critic.realness(image)).backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None and image.grad.abs().sum() > 0
        with torch.no_grad():
            assert critic.realness(image - 0.5 * image.grad / image.grad.norm()) > critic.realness(image)
        assert all(p.grad is None or torch.equal(p, before[name]) for name, p in critic.network.named_parameters())


class TestOnTrainedParts:
    """The components that look through others' weights."""

    def test_the_scores_card_and_weights_hold_what_it_was_trained_on(self, folder: Path) -> None:
        card = read_card(folder / "clr_face-tiny-score.safetensors")
        vqgan = read_card(folder / "clr_face-tiny-vqgan.safetensors")
        assert card["trained_with"] == {"clr_face-tiny-vqgan.safetensors": vqgan["sha256"]}

    def test_a_decoder_that_is_trained_further_leaves_latents_and_codes_to_the_bit(
        self, folder: Path, faces: Faces, tmp_path: Path
    ) -> None:
        component = small(made("vqgan_decoder"))
        component.recipe = replace(component.recipe, learning_rate=3e-3, ema=0.5)
        component.weights = replace(component.weights, lattice=0.0)  # larger than all else in so untrained a network
        first = run(component, faces, tmp_path / "short", steps=1, evaluate_every=1)
        assert run(component, faces, tmp_path / "long", steps=20, evaluate_every=20)["psnr"] > first["psnr"]
        old, new = (
            load_file(path)
            for path in (folder / "clr_face-tiny-vqgan.safetensors", tmp_path / "long" / "tiny.safetensors")
        )
        changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
        assert changed and {name.split(".")[1] for name in changed} == {"decoder", "post_quant_conv"}
        assert read_card(tmp_path / "long" / "tiny.safetensors")["trained_with"].keys() == {
            "clr_face-tiny-vqgan.safetensors"
        }

    def test_the_score_normalises_the_training_faces_latents(self, folder: Path, faces: Faces) -> None:
        component = made("score")
        network = component.build()
        gt = torch.rand(40, 3, SIZE, SIZE) * 2 - 1
        with torch.no_grad():
            component.prepare(network, gt)
            z = component._latents(network, gt, gt)[0]
        assert z.mean((0, 2, 3)).abs().max() < 0.01 and (z.std((0, 2, 3)) - 1).abs().max() < 0.01

    def test_a_score_that_sees_the_irns_face_begins_as_one_that_does_not(self, folder: Path) -> None:
        component: Any = build_component("clr_face", "score", SEES_ESTIMATE)
        network, narrow = component.build(), LatentScore(TINY.score, 3)
        given = folder / "clr_face-tiny-score.safetensors"
        gt, lq = torch.rand(2, 8, 3, SIZE, SIZE) * 2 - 1
        with torch.no_grad():
            component.prepare(network, gt)
            component.initialise(network, given)
            load_weights(narrow, given)
            z, condition = component._latents(network, gt, lq)
            t, degraded = torch.rand(8), narrow.normalise(component._encode(lq))
            torch.testing.assert_close(network(z, condition, t), narrow(z, degraded, t), rtol=0, atol=1e-5)
            assert (condition[:, 3:] - degraded).abs().mean() > 0.01  # of the IRN's face
        before = network.unet.net.conv_in.weight.clone()
        component.loss(network, gt, lq, draws_of(8)).backward()
        assert before[:, 6:].eq(0).all() and network.unet.net.conv_in.weight.grad[:, 6:].ne(0).any()
        assert set(component.provenance()["trained_with"]) == {
            f"clr_face-tiny-{name}.safetensors" for name in ("vqgan", "irn")
        }

    def test_a_score_that_knows_nothing_costs_the_weighted_noise(self, folder: Path) -> None:
        """Of draws that are made here again, in the same order: u of the times t = u^2, four to a face, then noise."""
        component, gt = made("score"), torch.rand(8, 3, SIZE, SIZE) * 2 - 1
        network = component.build()
        with torch.no_grad():
            component.prepare(network, gt)
            for parameter in network.unet.net.conv_out.parameters():  # type: ignore[union-attr]
                parameter.zero_()
        component.HEAVIEST = 5.0
        loss = component.loss(network, gt, gt, draws_of(8)).item()
        draws = draws_of(8)
        t = TINY.max_time * draws.uniform(4).flatten().double().square()
        noise = draws(4, 3, SIZE // 4, SIZE // 4).flatten(0, 1)
        alpha = torch.exp(-t.square() * (20 - 0.1) / 4 - t * 0.1 / 2)
        weight = ((1 - alpha**2) / alpha**2).clamp(1, 5)
        assert weight.min() == 1 and weight.max() == 5
        assert loss == pytest.approx(float((weight * noise.square().mean((1, 2, 3))).mean()), rel=1e-5)

    def test_the_students_card_names_its_teacher(self, folder: Path, teacher: Path) -> None:
        distilled = read_card(folder / "clr_face-tiny-recogniser.safetensors")["distilled_from"]
        assert distilled["name"] == "teacher" and len(distilled["sha256"]) == 64

    def test_the_mask_trains_and_is_compared_with_all_and_nothing(
        self, folder: Path, faces: Faces, tmp_path: Path
    ) -> None:
        component = small(made("mask"))
        component.weights = replace(component.weights, sparsity=10.0)  # alone worth learning in a few steps: it shuts
        component.recipe = replace(component.recipe, learning_rate=0.05)
        metrics = run(component, faces, tmp_path, steps=6, evaluate_every=6)
        assert 0 < metrics["mask_mean"] < 0.45
        assert {"identity", "identity_ones", "identity_zeros", "perceptual", "mask_std"} <= metrics.keys()
        assert set(read_card(tmp_path / "tiny.safetensors")["trained_with"]) == {
            f"clr_face-tiny-{name}.safetensors" for name in ("vqgan", "score", "irn", "recogniser")
        }

    def test_without_the_parts_it_says_which_is_missing(
        self, faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
        with pytest.raises(UsageError, match="expected the weights clr_face-tiny-vqgan"):
            run(made("score"), faces, tmp_path / "run")


class TestDistilledRecogniser:
    def test_a_student_follows_its_teacher(self, faces: Faces, teacher: Path, tmp_path: Path) -> None:
        """Vectors in 256 dimensions that know nothing of each other have a cosine of 1 / 16, give or take."""
        student = small(made("recogniser", AuxiliaryWeights(recogniser=teacher)))
        student.recipe = replace(student.recipe, batch_size=4, learning_rate=3e-3, ema=0.5)
        metrics = run(student, faces, tmp_path, steps=10, evaluate_every=10)
        assert metrics["cosine_gt"] > 4 / 16

    def test_it_starts_with_activations_of_unit_variance(self, teacher: Path) -> None:
        student, gt = made("recogniser", AuxiliaryWeights(recogniser=teacher)), torch.rand(8, 3, SIZE, SIZE) * 2 - 1
        network = student.build()
        spreads = []
        with torch.no_grad():
            student.prepare(network, gt)
            for layer in network.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.register_forward_hook(lambda _m, _i, output: spreads.append(float(output.std())))
            network(crop_from_ffhq(gt))
        assert spreads == pytest.approx([1.0] * len(spreads), abs=1e-3)

    def test_without_a_teacher_it_asks_for_one(self, faces: Faces, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="expected a teacher to distil, found none; name its weights"):
            run(made("recogniser"), faces, tmp_path)
