"""The small recogniser: its crop in closed form, its distance, strict loading."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bfr_models.errors import UsageError
from bfr_models.faces.template import FFHQ_5, TEMPLATE_SIDE
from bfr_models.networks.mobile_face import (
    SIDE,
    TEMPLATE,
    MobileFace,
    crop_from_ffhq,
    identity_distance,
    load_mobile_face,
)


@pytest.fixture(scope="module")
def recogniser() -> MobileFace:
    torch.manual_seed(0)
    return MobileFace().eval()


@pytest.mark.parametrize("size", [128, 512])
def test_the_crop_puts_the_landmarks_on_the_recognisers_template(size: int) -> None:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for (u, v), (own_u, own_v) in zip(FFHQ_5 / TEMPLATE_SIDE, TEMPLATE, strict=True):
        blob = torch.exp(-((x + 0.5 - u * size) ** 2 + (y + 0.5 - v * size) ** 2) / (2 * (size / 25) ** 2))
        crop = crop_from_ffhq(blob.expand(1, 3, -1, -1))[0, 0]
        weights = crop / crop.sum()
        centre = torch.arange(SIDE) + 0.5
        found = float((weights.sum(0) * centre).sum()), float((weights.sum(1) * centre).sum())
        # The two templates are no affine maps of each other: the noses end up 2.6 px apart.
        assert found == pytest.approx((own_u * SIDE, own_v * SIDE), abs=2.7)


def test_the_distance_is_zero_on_itself_and_has_gradients(recogniser: MobileFace) -> None:
    face, other = torch.rand(2, 2, 3, 128, 128) * 2 - 1
    assert identity_distance(recogniser, face, face).abs().max() < 1e-5
    image = face.clone().requires_grad_()
    identity_distance(recogniser, image, other).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(recogniser: MobileFace) -> None:
    crops = torch.rand(3, 3, SIDE, SIDE) * 2 - 1
    together = recogniser(crops)
    assert torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-6)
    assert torch.allclose(recogniser(crops[1:2]), together[1:2], atol=1e-5)


def test_loading_is_strict(recogniser: MobileFace, tmp_path: Path) -> None:
    state = recogniser.state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    loaded = load_mobile_face(tmp_path / "whole.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    del state["scale"]
    save_file(state, tmp_path / "partial.safetensors")
    for name in ("partial.safetensors", "absent.safetensors"):
        with pytest.raises(UsageError, match="MobileFace"):
            load_mobile_face(tmp_path / name)
