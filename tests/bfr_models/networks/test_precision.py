"""The blocks that stand in for diffusers' in half precision."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from bfr_models.methods.difface_presets import PRIOR128
from bfr_models.methods.diffbfr_presets import IRM_HIGH128, IRM_LOW128
from bfr_models.networks import precision
from bfr_models.networks.configs import UNetConfig, VQGANConfig
from bfr_models.networks.precision import keep_float32
from bfr_models.networks.unet import UNet
from bfr_models.networks.vqgan import VQGAN

ADDED = UNetConfig(16, (16, 32), 2, attention_levels=(0, 1), head_dim=8, norm_groups=8, scale_shift=False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def inputs(config: UNetConfig, faces: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(faces, 3 + config.condition_channels, config.sample_size, config.sample_size)
    return x.to(memory_format=torch.channels_last), torch.linspace(1, 200, faces)


def both(network: nn.Module) -> tuple[Any, Any]:
    """A network with diffusers' own blocks, and with ours, in the layout that methods use."""
    network = network.eval().requires_grad_(False)
    ours = keep_float32(copy.deepcopy(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kinds = {type(module) for module in ours.modules()}
    assert {precision._ResidualBlock, precision._Attention} <= kinds
    return network, ours


def squared_error(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b).square().mean())


@pytest.mark.parametrize(
    "config", [PRIOR128, IRM_HIGH128, IRM_LOW128, ADDED], ids=["prior", "irm_high", "irm_low", "added timestep"]
)
@torch.inference_mode()
def test_in_float32_they_compute_what_diffusers_do(config: UNetConfig) -> None:
    diffusers, ours = both(UNet(config))
    assert not {"ResnetBlock2D", "Attention"} & {type(module).__name__ for module in ours.modules()}
    x, t = inputs(config)
    torch.testing.assert_close(ours(x, t), diffusers(x, t), rtol=0, atol=1e-5)


def test_blocks_of_which_more_is_asked_stay_as_they_are() -> None:
    blocks = nn.Sequential(
        ResnetBlock2D(in_channels=8, groups=8, output_scale_factor=2.0),
        ResnetBlock2D(in_channels=8, groups=8, up=True),
        Attention(8, heads=1, norm_num_groups=8, residual_connection=True, cross_attention_dim=4),
        Attention(8, heads=1, residual_connection=True),
    )
    assert [type(block).__name__ for block in keep_float32(blocks)] == ["ResnetBlock2D"] * 2 + ["Attention"] * 2


def test_a_vqgan_and_its_gradient_are_the_same_too() -> None:
    diffusers, ours = both(VQGAN(VQGANConfig(channels=(16, 32), layers_per_block=1, codes=16, norm_groups=8)))
    latents = [torch.randn(2, 3, 8, 8).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        latents[1].copy_(latents[0])
    faces = [network.net.decode(latent).sample for network, latent in zip((diffusers, ours), latents, strict=True)]
    for face in faces:
        face.square().sum().backward()
    torch.testing.assert_close(faces[1], faces[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(latents[1].grad, latents[0].grad, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_in_half_precision_they_are_nearer_to_the_exact_result(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ours = both(UNet(PRIOR128))
    monkeypatch.setattr(precision, "_OF_DIFFUSERS", {})
    norms_alone = keep_float32(copy.deepcopy(network))
    x, t = inputs(PRIOR128)
    exact = network(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [squared_error(one(x, t), exact) for one in (ours, norms_alone)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-10), (torch.bfloat16, 1e-4)], ids=str)
@torch.inference_mode()
def test_a_face_comes_out_the_same_alone_and_among_others(dtype: torch.dtype, share: float) -> None:
    config = replace(PRIOR128, sample_size=64)
    _, ours = both(UNet(config))
    x, t = inputs(config, faces=8)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        together = ours(x, t).float()
        alone = torch.cat([ours(x[row : row + 1], t[row : row + 1]) for row in range(8)])
    assert squared_error(alone, together) < share * float(together.var())


@torch.inference_mode()
def test_with_one_thread_a_face_is_the_same_to_the_bit_in_batches_of_several_in_half_precision() -> None:
    """Several threads share the pixels of a norm's mean, each batch in its own way; one face takes other paths.
    Where a processor's kernels differ between two faces and eight as well, there is nothing to be had."""
    config, threads = replace(PRIOR128, sample_size=64), torch.get_num_threads()
    _, ours = both(UNet(config))
    x, t = inputs(config, faces=8)
    torch.set_num_threads(1)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            together = ours(x, t)
            in_pairs = torch.cat([ours(x[row : row + 2], t[row : row + 2]) for row in range(0, 8, 2)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(in_pairs, together)
