"""The contract of every method in the registry, at the sizes that a CPU restores in seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import BfrError
from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.detail import DetailNetwork
from bfr_models.pixels import to_tensor, to_uint8
from bfr_models.registry import load_method, methods, resolve_method
from bfr_models.training.estimator_unet import lattice
from bfr_models.types import FaceBatch, Restorer
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights
from tests.support import portrait

SMALL = [
    (spec.name, preset.name)
    for spec in methods().values()
    for preset in spec.presets
    if preset.size <= 128 or preset.detail is not None
]
FEW_STEPS = {
    "difface": {"steps": 4},
    "diffbfr": {"steps": 2, "steps_high": 2, "steps_texture": 2},
    "clr_face": {"steps": 4},
}
every_method = pytest.mark.parametrize(("method", "preset"), SMALL)


@cache
def loaded(method: str, preset: str | None = None, **options: object) -> Restorer:
    """A restorer keeps nothing between calls, so one serves all tests."""
    return load_method(resolve_method(method, preset, {**FEW_STEPS.get(method, {}), **options}))


def faces(n: int, size: int, first_seed: int = 0) -> FaceBatch:
    """Smooth patterns with some noise, each its own, each with its own seed."""
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    images = (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)
    return FaceBatch(tuple(f"face-{i}" for i in range(n)), images, tuple(range(first_seed, first_seed + n)))


def one_by_one(batch: FaceBatch) -> list[FaceBatch]:
    rows = zip(batch.ids, batch.images, batch.seeds, strict=True)
    return [FaceBatch((face_id,), image[None], (seed,)) for face_id, image, seed in rows]


@every_method
def test_a_restored_batch_has_the_same_faces_in_the_same_order(method: str, preset: str) -> None:
    restorer = loaded(method, preset)
    batch = faces(3, restorer.size)
    before = batch.images.clone()
    restored = restorer.restore(batch)
    assert (restored.ids, restored.seeds) == (batch.ids, batch.seeds)
    assert restored.images.shape == (3, 3, restorer.size, restorer.size)
    assert (restored.images.dtype, restored.images.device.type) == (torch.float32, "cpu")
    assert restored.images.isfinite().all() and restored.images.abs().max() <= 1
    assert torch.equal(batch.images, before)
    # each face is still itself: closer to its own input than to any other
    distance = torch.cdist(restored.images.flatten(1), batch.images.flatten(1))
    assert distance.argmin(1).tolist() == [0, 1, 2]


@every_method
def test_restoring_twice_gives_the_same_bits(method: str, preset: str) -> None:
    restorer = loaded(method, preset)
    batch = faces(2, restorer.size)
    first = restorer.restore(batch).images
    torch.manual_seed(1234)  # whatever else the process draws
    assert torch.equal(restorer.restore(batch).images, first)


@every_method
def test_a_face_does_not_depend_on_its_batch(method: str, preset: str) -> None:
    """A batch of 4 may sum in another order than 4 batches of 1. In float32 that is some 1e-6 per network, which the
    clipped chain does not amplify: 1e-5 allowed. A written level then changes only where a pixel lies that close to
    the border between two levels, 2 / 255 apart: on a share of at most 2 x 1e-5 / (2 / 255) of the pixels.
    """
    restorer, tolerance = loaded(method, preset), 1e-5
    batch = faces(4, restorer.size)
    together = restorer.restore(batch).images
    alone = torch.cat([restorer.restore(single).images for single in one_by_one(batch)])
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)
    difference = np.abs(to_uint8(together).astype(int) - to_uint8(alone))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 2 * tolerance / (2 / 255)


@every_method
def test_only_a_sampling_method_depends_on_the_seed(method: str, preset: str) -> None:
    restorer = loaded(method, preset)
    one, other = (restorer.restore(faces(1, restorer.size, seed)).images for seed in (0, 1))
    assert torch.equal(one, other) == (method in ("passthrough", "estimator"))


@pytest.mark.parametrize("size", [96, 128, 200])
def test_passthrough_takes_a_face_of_any_size(size: int) -> None:
    batch = faces(1, size)
    restored = loaded("passthrough", "face128").restore(batch).images
    assert restored.shape[-1] == 128
    assert torch.equal(restored, batch.images) == (size == 128)


@pytest.mark.parametrize("method", ["estimator", "difface", "clr_face"])
def test_face256_draws_on_the_estimate_and_adds_what_the_method_changed_of_it(method: str) -> None:
    batch = faces(2, 256)
    estimate, coarse = (loaded(name, "face128").restore(batch).images for name in ("estimator", method))
    network = DetailNetwork(DetailConfig())
    load_weights(network, require_weight("difface-face256-detail"))
    with torch.inference_mode():
        drawn = network((batch.images + 1) / 2, (estimate + 1) / 2) * 2 - 1
    changed = torch.nn.functional.interpolate(coarse - estimate, 256, mode="bicubic")
    restored = loaded(method, "face256").restore(batch).images
    torch.testing.assert_close(restored, (drawn + changed).clamp(-1, 1), rtol=0, atol=1e-5)


class TestDifFace:
    def test_both_samplers_restore_and_differ(self) -> None:
        batch = faces(1, 128)
        ddim, solver = (loaded("difface", sampler=sampler).restore(batch).images for sampler in ("ddim", "dpm++"))
        assert not torch.equal(ddim, solver)

    def test_eta_scales_the_noise_of_the_steps(self) -> None:
        batch = faces(1, 128)
        assert not torch.equal(
            *(loaded("difface", sampler="ddim", eta=eta).restore(batch).images for eta in (0.0, 1.0))
        )

    def test_with_a_cover_a_face_moves_the_more_the_estimator_changed_it(self) -> None:
        """A clean face stays close to its estimate; a badly damaged one moves away from it."""
        clean = [portrait(number, 128) for number in range(4)]
        spoilt = [degrade(face, get_preset("difface_extreme"), number) for number, face in enumerate(clean)]
        images = torch.stack([to_tensor(face) for face in (*clean, *spoilt)])
        batch = FaceBatch(tuple(map(str, range(8))), images, tuple(range(8)))
        estimate = loaded("estimator", self_ensemble=True).restore(batch).images
        restored = loaded("difface", cover=5.0, start_timestep=200).restore(batch).images
        moved = (restored - estimate).square().mean(dim=(1, 2, 3)).sqrt()
        common = loaded("difface", cover=0.0, start_timestep=200).restore(batch).images
        gone = (common - estimate).square().mean(dim=(1, 2, 3)).sqrt()
        assert moved[:4].mean() < moved[4:].mean() < gone[4:].mean()
        assert moved[:4].mean() < gone[:4].mean() / 2

    def test_it_noises_its_own_estimate_and_denoises_from_there(self) -> None:
        """A chain that starts at t = 0 hardly leaves the estimate, which is not the input; one from higher up does."""
        batch = faces(1, 128)
        estimate = loaded("estimator", self_ensemble=True).restore(batch).images
        near, far = (loaded("difface", start_timestep=n, steps=1).restore(batch).images for n in (0, 100))
        moved, gone = ((images - estimate).square().mean().sqrt() for images in (near, far))
        assert moved < gone / 2
        assert moved < (near - batch.images).square().mean().sqrt() / 2


def test_the_mirror_image_of_a_face_has_the_mirror_image_of_its_self_ensembled_estimate() -> None:
    """It is the mean of both estimates, each as the network made it."""
    batch = faces(2, 128)
    mirrored = batch.with_images(batch.images.flip(-1))
    mean, other = (loaded("estimator", self_ensemble=True).restore(each).images for each in (batch, mirrored))
    one, two = (loaded("estimator").restore(each).images for each in (batch, mirrored))
    assert (one - two.flip(-1)).abs().max() > 0.05
    torch.testing.assert_close(mean, other.flip(-1), rtol=0, atol=1e-5)
    inside = (one.abs() < 1) & (two.flip(-1).abs() < 1)  # neither was clipped
    torch.testing.assert_close(mean[inside], ((one + two.flip(-1)) / 2)[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["estimator", "difface", "diffbfr", "clr_face"])
def test_no_weave_is_drawn_where_little_is_left_of_a_face(method: str) -> None:
    """The shipped networks repeat themselves from place to place no more than clean faces do."""
    clean = [portrait(number, 128) for number in range(16)]
    worn = torch.stack([to_tensor(degrade(face, get_preset("difface"), seed)) for seed, face in enumerate(clean)])
    drawn = loaded(method).restore(FaceBatch(tuple(map(str, range(16))), worn, tuple(range(16)))).images
    assert lattice(drawn) < lattice(torch.stack([to_tensor(face) for face in clean]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_within_a_grey_level_on_average(precision: str) -> None:
    """bf16 rounds by 2^-9. The correction f(y0) - y0 is what is computed in it, and that is below 1."""
    batch = faces(2, 128)
    full, half = (loaded("estimator", precision=p).restore(batch).images for p in ("fp32", precision))
    assert not torch.equal(full, half)
    assert (full - half).abs().mean() <= 2 / 255


@pytest.mark.parametrize(("has_amx", "precision"), [(True, "bf16"), (False, "fp32")])
@pytest.mark.parametrize("method", ["estimator", "difface", "diffbfr"])
def test_auto_is_what_the_cpu_multiplies_by_itself(
    method: str, has_amx: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = faces(1, 128)
    monkeypatch.setattr("bfr_models.device.multiplies_bf16", lambda: has_amx)
    own, asked = (
        loaded(method, **options).restore(batch).images for options in ({"precision": "auto"}, {"precision": precision})
    )
    assert torch.equal(own, asked)


@pytest.mark.parametrize("method", ["estimator", "difface", "diffbfr"])
def test_in_bf16_a_face_moves_by_two_grey_levels_at_most_with_its_batch(method: str) -> None:
    """What is rounded to 2^-9 between two layers is on the other side of the border where sums differ in their last
    digits."""
    restorer, batch = loaded(method, precision="bf16"), faces(4, 128)
    alone = torch.cat([restorer.restore(single).images for single in one_by_one(batch)])
    assert (restorer.restore(batch).images - alone).abs().max() <= 2 * 2 / 255


def test_weights_other_than_the_planned_ones_are_refused() -> None:
    resolved = resolve_method("estimator")
    planned = {"estimator": {**resolved.weights["estimator"], "sha256": "0" * 64}}
    with pytest.raises(BfrError, match=f"expected sha256 {'0' * 64} as when the run was planned"):
        load_method(replace(resolved, weights=planned))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_method
def test_a_gpu_restores_what_a_cpu_does(method: str, preset: str) -> None:
    """TF32 convolutions keep 11 bits: 2^-11 per layer, a grey level in the end, where the draws are the same."""
    restorer = loaded(method, preset)
    batch = faces(2, restorer.size)
    on_gpu = load_method(resolve_method(method, preset, FEW_STEPS.get(method)), "cuda").restore(batch).images
    assert on_gpu.device.type == "cpu"
    assert (on_gpu - restorer.restore(batch).images).abs().mean() <= 2 / 255
