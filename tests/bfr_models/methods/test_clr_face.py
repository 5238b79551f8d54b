"""CLR-Face with tiny networks of random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.sde import VPSDE
from bfr_models.errors import UsageError
from bfr_models.methods import clr_face
from bfr_models.methods.clr_face import CLRFace
from bfr_models.methods.clr_face_presets import SAMPLERS, CLRFaceOptions
from bfr_models.metrics.independence import guiding_recognisers, self_scored
from bfr_models.networks.latent_networks import LatentMask, LatentScore
from bfr_models.networks.mobile_face import crop_from_ffhq
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.vqgan import VQGAN
from bfr_models.registry import ResolvedMethod
from bfr_models.training.clr_face_guidance import unit_variance
from bfr_models.training.registry import build_component
from bfr_models.types import FaceBatch
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights
from tests.clr_face import SEES_ESTIMATE, SIZE, TINY

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
EVERYWHERE: dict[str, Any] = {"steps": 3, "guide_from": 1.0, "guide_to": 0.0, "guide_every": 1}


def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(3)
    made: dict[str, torch.nn.Module] = {
        "vqgan": VQGAN(TINY.vqgan),
        "score": LatentScore(TINY.score, 3),
        "irn": SwinIR(TINY.irn),
        "mask": LatentMask(TINY.mask, 3),
        "recogniser": build_component("clr_face", "recogniser", TINY).build(),
    }
    with torch.no_grad():
        unit_variance(made["recogniser"], crop_from_ffhq(faces().images))  # else all faces look alike to it
        for name in ("vqgan", "score", "irn", "mask"):
            for parameter in made[name].parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        # What starts as 1/2 everywhere has to be open here and shut there.
        made["mask"].layers[-1].weight.normal_(std=2)  # type: ignore[index, union-attr, operator]
        made["vqgan"].codebook.copy_(torch.randn(TINY.vqgan.codes, 3))  # type: ignore[operator, union-attr]
        made["score"].std.fill_(0.5)  # type: ignore[operator, union-attr]
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for component, network in networks().items():
        path = folder / f"{TINY.weights[component]}.safetensors"
        card = {"name": component}
        if component == "recogniser":
            card |= {"distilled_from": {"name": "teacher", "sha256": "7" * 64}}  # type: ignore[dict-item]
        found[component] = {"file": path.name, "sha256": save_weights(parameters_of(network), card, path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BFR_WEIGHTS", str(folder))
        yield found


@pytest.fixture
def resolved(weights: dict[str, dict[str, str]]) -> ResolvedMethod:
    return ResolvedMethod("clr_face", TINY, TINY.options, weights, "bfr_models.methods.clr_face:CLRFace")


def method(resolved: ResolvedMethod, **options: Any) -> CLRFace:
    chosen = replace(CLRFaceOptions(), **options)
    resolved.preset.check(chosen)
    return CLRFace(replace(resolved, options=chosen), "cpu")


def faces(n: int = 2, first_seed: int = 0) -> FaceBatch:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(-1, 1)
    return FaceBatch(tuple(map(str, range(n))), images, tuple(range(first_seed, first_seed + n)))


@every_sampler
def test_it_restores_the_same_faces_the_same_way_twice(resolved: ResolvedMethod, sampler: str) -> None:
    restorer, batch = method(resolved, sampler=sampler, **EVERYWHERE), faces()
    restored = restorer.restore(batch)
    assert (restored.ids, restored.seeds) == (batch.ids, batch.seeds)
    assert restored.images.shape == (2, 3, SIZE, SIZE) and restored.images.dtype == torch.float32
    assert restored.images.isfinite().all() and restored.images.abs().max() <= 1
    torch.manual_seed(99)
    assert torch.equal(restorer.restore(batch).images, restored.images)
    assert not torch.equal(restorer.restore(faces(first_seed=9)).images, restored.images)


@every_sampler
def test_a_guided_face_does_not_depend_on_its_batch(resolved: ResolvedMethod, sampler: str) -> None:
    """To the bit: all batches that the networks see are of one shape."""
    restorer, batch = method(resolved, sampler=sampler, guide_faces=2, **EVERYWHERE), faces(3)
    together = restorer.restore(batch).images
    for row in (0, 2):
        single = FaceBatch(batch.ids[row : row + 1], batch.images[row : row + 1], batch.seeds[row : row + 1])
        assert torch.equal(restorer.restore(single).images, together[row : row + 1])


@every_sampler
def test_an_unguided_face_does_not_depend_on_its_batch(
    resolved: ResolvedMethod, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, which a batch sums in another order, some 1e-6 per network: 1e-5 of the latent is allowed, before the
    codes are chosen: a latent between two codes may fall on either side."""
    latents: list[Tensor] = []
    quantise = VQGAN.quantise
    monkeypatch.setattr(VQGAN, "quantise", lambda self, z: latents.append(z) or quantise(self, z))  # type: ignore[func-returns-value]
    batch, restorer = faces(), method(resolved, sampler=sampler, guidance=0.0, **EVERYWHERE)
    restorer.restore(batch)
    for row in range(2):
        restorer.restore(FaceBatch(batch.ids[row : row + 1], batch.images[row : row + 1], batch.seeds[row : row + 1]))
    together, *alone = latents
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-5)


def test_the_score_network_sees_the_irns_face_beside_the_degraded_one_where_it_has_room(
    resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions: list[Tensor] = []
    forward = LatentScore.forward
    spy = lambda self, z, condition, t: conditions.append(condition) or forward(self, z, condition, t)  # type: ignore[func-returns-value] # noqa: E731
    monkeypatch.setattr(LatentScore, "forward", spy)
    restorer, batch = method(resolved, guidance=0.0), faces()
    with torch.no_grad():
        estimate = (restorer._irn((batch.images + 1) / 2) * 2 - 1).clamp(-1, 1)
    for preset, seen in ((TINY, [batch.images]), (SEES_ESTIMATE, [batch.images, estimate])):
        restorer._score = LatentScore(preset.score, 3)
        restorer.restore(batch)
        expected = torch.cat([restorer._encode(face) for face in seen], dim=1)
        torch.testing.assert_close(conditions[-1], expected, rtol=0, atol=1e-5)


class TestGuidance:
    def distance(self, resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Tensor:
        """1 - cos between the latent's face, before the codes, and the IRN's, with the guiding recogniser."""
        latents: list[Tensor] = []
        with monkeypatch.context() as patch:
            quantise = VQGAN.quantise
            patch.setattr(VQGAN, "quantise", lambda self, z: latents.append(z) or quantise(self, z))  # type: ignore[func-returns-value]
            method(resolved, guide_faces=2, **EVERYWHERE, **options).restore(faces())
        made = networks()
        with torch.no_grad():
            estimate = (made["irn"].eval()((faces().images + 1) / 2) * 2 - 1).clamp(-1, 1)
            phi = made["recogniser"]
            embeddings = [phi(crop_from_ffhq(image)) for image in (made["vqgan"].decode(latents[0]), estimate)]  # type: ignore[operator]
        return 1 - (embeddings[0] * embeddings[1]).sum(1)

    def test_it_brings_the_face_nearer_to_the_irns(
        self, resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = self.distance(resolved, monkeypatch, guidance=0.0)
        guided = self.distance(resolved, monkeypatch, guidance=0.1, mask="ones")
        assert (guided < plain).all()

    def test_the_learned_mask_leaves_the_rest_of_the_latent_to_the_bit(
        self, resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Tensor] = []
        quantise, mask = VQGAN.quantise, LatentMask.forward
        monkeypatch.setattr(VQGAN, "quantise", lambda self, z: seen.append(z) or quantise(self, z))  # type: ignore[func-returns-value]

        def half(self: LatentMask, degraded: Tensor, estimate: Tensor) -> Tensor:
            whole = mask(self, degraded, estimate)
            seen.append(whole * (whole > whole.median()))
            return seen[-1]

        monkeypatch.setattr(LatentMask, "forward", half)
        opened, guided = method(resolved, guide_faces=2, **EVERYWHERE).restore(faces()) and seen[-2:]
        method(resolved, guidance=0.0, **EVERYWHERE).restore(faces())
        shut = (opened == 0).expand_as(guided)
        assert 0 < shut.float().mean() < 1
        assert torch.equal(guided[shut], seen[-1][shut])
        assert not torch.equal(guided[~shut], seen[-1][~shut])

    def test_checkpointing_changes_nothing_but_the_memory(self, resolved: ResolvedMethod) -> None:
        plain, saving = (method(resolved, checkpointing=c, **EVERYWHERE).restore(faces()).images for c in (False, True))
        torch.testing.assert_close(saving, plain, rtol=0, atol=1e-5)


class TestStarts:
    def test_no_steps_from_the_degraded_latent_is_the_autoencoder(self, resolved: ResolvedMethod) -> None:
        made = networks()["vqgan"].eval()
        path = Path(str(resolved.weights["vqgan"]["file"]))
        load_weights(made, _folder() / path)
        with torch.no_grad():
            expected = made(faces().images).image.clamp(-1, 1)
        found = method(resolved, start="lq", steps=0).restore(faces()).images
        # through (z - mean) / std and back: 1e-6 of the latent, and a code more or less in a thousand
        assert ((found - expected).abs() > 1e-3).float().mean() < 0.05

    def test_what_is_not_quantised_is_decoded_as_the_chain_left_it(self, resolved: ResolvedMethod) -> None:
        restorer = method(resolved, start="lq", steps=0, quantised=False)
        with torch.no_grad():
            expected = restorer._vqgan.decode(restorer._vqgan.encode(faces().images)).clamp(-1, 1)
        # through (z - mean) / std and back: 1e-6 of the latent
        torch.testing.assert_close(restorer.restore(faces()).images, expected, rtol=0, atol=1e-4)

    def test_the_residual_gives_back_what_the_autoencoder_loses_of_the_irns_face(
        self, resolved: ResolvedMethod
    ) -> None:
        """Without a chain that is all of it; a half is half-way there. A few 1e-6 of float32, twice through it."""
        lost, half, whole = (method(resolved, steps=0, residual=r).restore(faces()).images for r in (0.0, 0.5, 1.0))
        irn = networks()["irn"].eval()
        load_weights(irn, _folder() / str(resolved.weights["irn"]["file"]))
        with torch.no_grad():
            recovered = (irn((faces().images + 1) / 2) * 2 - 1).clamp(-1, 1)
        torch.testing.assert_close(whole, recovered, rtol=0, atol=1e-5)
        inside = (lost.abs() < 1) & (whole.abs() < 1)  # where nothing was clipped
        torch.testing.assert_close(half[inside], ((lost + whole) / 2)[inside], rtol=0, atol=1e-5)
        assert (lost - whole).abs().mean() > 0.01

    def test_each_start_restores_in_its_own_way(self, resolved: ResolvedMethod) -> None:
        images = [method(resolved, start=s, guidance=0.0).restore(faces()).images for s in ("irn", "lq", "noise")]
        assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])


class TestIndependence:
    def test_it_names_the_guiding_recogniser_and_its_teacher(self, resolved: ResolvedMethod) -> None:
        own, teacher = guiding_recognisers(resolved)
        assert own == {"name": "recogniser", "sha256": resolved.weights["recogniser"]["sha256"]}
        assert teacher == {"name": "teacher", "sha256": "7" * 64}

    @pytest.mark.parametrize("scorer", [{"name": "teacher", "sha256": "1"}, {"name": "another", "sha256": "7" * 64}])
    def test_a_run_that_scores_itself_is_warned_of(self, resolved: ResolvedMethod, scorer: dict[str, str]) -> None:
        warning = self_scored(resolved, scorer)
        assert warning is not None and "guided by teacher, which also scores it" in warning

    def test_another_recogniser_none_or_no_guidance_needs_no_warning(self, resolved: ResolvedMethod) -> None:
        assert self_scored(resolved, {"name": "dlib", "sha256": "1"}) is None
        assert self_scored(resolved, None) is None
        unguided = replace(resolved, options=replace(TINY.options, guidance=0.0))  # type: ignore[type-var]
        assert self_scored(unguided, {"name": "teacher", "sha256": "1"}) is None


def _folder() -> Path:
    from bfr_models.weights.files import cache_folder

    return cache_folder()


class TestOwnStarts:
    """`cover`: each face's chain starts where the noise covers what the IRN changed."""

    @staticmethod
    def starts(restorer: CLRFace, batch: FaceBatch, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        found: list[float] = []
        diffuse = Level.diffuse

        def spy(self: Level, x_0: Tensor, noise: Tensor) -> Tensor:
            found.append(self.t)
            return diffuse(self, x_0, noise)

        monkeypatch.setattr(Level, "diffuse", spy)
        restorer.restore(batch)
        return found

    def test_the_noise_is_cover_times_the_coarse_change(
        self, resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clr_face, "COARSE", 4)
        restorer, batch = method(resolved, cover=1.0, start_time=0.8, guidance=0.0), faces(3)
        found = self.starts(restorer, batch, monkeypatch)
        with torch.no_grad():
            recovered = (restorer._irn((batch.images + 1) / 2) * 2 - 1).clamp(-1, 1)
            change = restorer._encode(recovered) - restorer._encode(batch.images)
        coarse = torch.nn.functional.interpolate(change, 4, mode="area").square().mean((1, 2, 3)).sqrt()
        for t, noise in zip(found, coarse.tolist(), strict=True):
            assert VPSDE().sigma(t) / VPSDE().alpha(t) == pytest.approx(noise, rel=1e-3)

    @pytest.mark.parametrize(("cover", "start"), [(1e-6, 0.01), (10.0, 0.3)])
    def test_it_stays_between_the_shortest_chain_and_start_time(
        self, resolved: ResolvedMethod, monkeypatch: pytest.MonkeyPatch, cover: float, start: float
    ) -> None:
        restorer = method(resolved, cover=cover, start_time=0.3, guidance=0.0)
        assert self.starts(restorer, faces(2), monkeypatch) == [start] * 2

    @pytest.mark.parametrize("start", ["lq", "noise"])
    def test_the_other_starts_have_none(self, resolved: ResolvedMethod, start: str) -> None:
        batch = faces(2)
        images = [method(resolved, start=start, cover=cover).restore(batch).images for cover in (0.0, 2.0)]
        assert torch.equal(*images)

    def test_a_face_does_not_depend_on_its_batch(self, resolved: ResolvedMethod) -> None:
        restorer, batch = method(resolved, cover=0.5, guidance=0.3, guide_to=0.0, guide_faces=4), faces(3)
        together = restorer.restore(batch).images
        single = FaceBatch(batch.ids[2:], batch.images[2:], batch.seeds[2:])
        assert torch.equal(restorer.restore(single).images, together[2:])

    def test_what_cannot_be_is_refused(self) -> None:
        with pytest.raises(UsageError, match="expected cover in"):
            CLRFaceOptions(cover=-1.0)

    @pytest.mark.parametrize(
        ("guided", "found"), [((0.005, 0.3), r"0\.4, 0\.001"), ((0.05, 0.5), r"0\.01, 0\.001")], ids=["long", "short"]
    )
    def test_the_longest_chain_and_the_shortest_must_both_have_a_guided_step(
        self, guided: tuple[float, float], found: str
    ) -> None:
        low, high = guided
        with pytest.raises(UsageError, match=f"found them at {found}; take more steps"):
            TINY.check(CLRFaceOptions(cover=1.0, steps=2, guide_to=low, guide_from=high))
        TINY.check(CLRFaceOptions(cover=1.0, steps=2, guide_to=0.005, guide_from=0.5))


def test_with_a_self_ensemble_a_mirror_image_has_the_mirror_image_of_its_face(resolved: ResolvedMethod) -> None:
    batch = faces()
    mirrored = batch.with_images(batch.images.flip(-1))

    def gap(is_ensembled: bool) -> float:
        """Of the Identity Recovery Network's faces: nothing else is left without a chain."""
        restorer = method(resolved, self_ensemble=is_ensembled, steps=0, residual=1.0, quantised=False)
        face, other = (restorer.restore(each).images for each in (batch, mirrored))
        return float((other.flip(-1) - face).abs().max())

    assert gap(True) < 1e-5 and gap(False) > 1e-2
