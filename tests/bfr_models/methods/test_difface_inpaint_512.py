"""Inpainting: what is known stays to the last bit, what is not is filled as in the equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.types import FaceBatch
from tests.bfr_models.methods.conftest import SIZE, Tiny
from tests.bfr_models.methods.test_difface_512 import abar, draws_of

Make = Callable[..., Tiny]


def scratched(n: int = 2) -> FaceBatch:
    """Faces with a scratch and a corner gone; what lies under a mask is noise that must not be looked at."""
    generator = torch.Generator().manual_seed(n)
    images = torch.rand(n, 3, SIZE, SIZE, generator=generator) * 2 - 1
    masks = torch.zeros(n, 1, SIZE, SIZE)
    masks[:, :, 5:7, :] = 1
    masks[0, :, :4, :4] = 1
    return FaceBatch(tuple(str(i) for i in range(n)), images, tuple(range(n)), masks)


@torch.inference_mode()
def reference(made: Tiny, batch: FaceBatch, gamma: float = 0.5) -> Tensor:
    """In float64, with the gradient step that the equations have in the place of a replacement."""
    assert batch.masks is not None
    y, mask = batch.images.double(), batch.masks.double()
    f = made.estimator((y / 2 + 0.5) * (1 - mask), mask)
    z, *draws = draws_of(batch, 121)
    x = math.sqrt(abar(480)) * (2 * f - 1) + math.sqrt(1 - abar(480)) * z
    for t, noise in zip(range(476, -1, -4), draws, strict=True):
        now, after = abar(t), abar(t - 4) if t else 1.0
        eps = made.output(x, t)[:, :3]
        x_0 = (x - math.sqrt(1 - now) * eps) / math.sqrt(now)
        x_0 = x_0 - gamma * 2 * (1 - mask) * (x_0 - y)
        sigma = math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
        x = math.sqrt(after) * x_0.clamp(-1, 1) + math.sqrt(max(0, 1 - after - sigma**2)) * eps + sigma * noise
    return x.clamp(-1, 1) * mask + y * (1 - mask)


def test_the_default_is_the_authors_procedure(tiny: Make) -> None:
    made, batch = tiny("inpaint256"), scratched()
    expected = reference(made, batch)
    restored = made.load().restore(batch).images
    np.testing.assert_allclose(restored.numpy(), expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"sampler": "dpm++"}, {"sampler": "ancestral"}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_known_pixels_stay_to_the_last_bit_and_holes_are_filled(tiny: Make, options: dict[str, str]) -> None:
    batch = scratched()
    restored = tiny("inpaint256", steps=12, **options).load().restore(batch)
    assert batch.masks is not None
    holes = (batch.masks == 1).expand_as(batch.images)
    assert torch.equal(restored.images[~holes], batch.images[~holes])
    assert (restored.images[holes] != batch.images[holes]).all()
    assert restored.images.isfinite().all() and restored.images.abs().max() <= 1
    assert (restored.ids, restored.seeds, restored.masks) == (batch.ids, batch.seeds, None)


def test_what_lies_under_a_mask_does_not_matter(tiny: Make) -> None:
    batch, restorer = scratched(), tiny("inpaint256", steps=5).load()
    assert batch.masks is not None
    other = FaceBatch(batch.ids, torch.where(batch.masks == 1, 0.7, batch.images), batch.seeds, batch.masks)
    assert torch.equal(restorer.restore(batch).images, restorer.restore(other).images)


def test_without_masks_black_pixels_are_the_holes(tiny: Make) -> None:
    batch, restorer = scratched(), tiny("inpaint256", steps=5).load()
    assert batch.masks is not None
    black = torch.where(batch.masks == 1, -1.0, batch.images)
    unmasked = FaceBatch(batch.ids, black, batch.seeds)
    assert torch.equal(restorer.restore(batch).images, restorer.restore(unmasked).images)


def test_a_picture_without_holes_is_left_as_it_is(tiny: Make) -> None:
    batch = scratched()
    whole = FaceBatch(batch.ids, batch.images, batch.seeds, torch.zeros(2, 1, SIZE, SIZE))
    assert torch.equal(tiny("inpaint256", steps=2).load().restore(whole).images, batch.images)


def test_a_face_does_not_depend_on_its_batch(tiny: Make) -> None:
    batch, restorer = scratched(), tiny("inpaint256", steps=10).load()
    assert batch.masks is not None
    together = restorer.restore(batch).images
    for row in range(2):
        only = slice(row, row + 1)
        alone = FaceBatch(batch.ids[only], batch.images[only], batch.seeds[only], batch.masks[only])
        torch.testing.assert_close(restorer.restore(alone).images[0], together[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("option", [{"cover": 2.0}, {"self_ensemble": True}], ids=str)
def test_what_goes_by_an_estimate_is_refused(tiny: Make, option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"expected {next(iter(option))} .* for inpaint256"):
        tiny("inpaint256", start_gap=0, **option)


class TestMasks:
    @pytest.mark.parametrize(
        "masks",
        [torch.zeros(2, SIZE, SIZE), torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, 1, SIZE, SIZE).bool(),
         torch.zeros(1, 1, SIZE, SIZE), torch.zeros(2, 1, SIZE, SIZE + 1)],
        ids=["no channel", "three channels", "bool", "too few", "another size"],
    )  # fmt: skip
    def test_another_shape_or_dtype_is_refused(self, masks: Tensor) -> None:
        with pytest.raises(ValueError, match=r"expected masks \(2, 1, 16, 16\) float32, got"):
            FaceBatch(("a", "b"), torch.zeros(2, 3, SIZE, SIZE), (1, 2), masks)

    @pytest.mark.parametrize("value", [0.5, 255.0, float("nan")])
    def test_half_holes_are_refused(self, value: float) -> None:
        masks = torch.zeros(1, 1, SIZE, SIZE)
        masks[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="expected masks of 0 and 1, got values in"):
            FaceBatch(("a",), torch.zeros(1, 3, SIZE, SIZE), (1,), masks)
