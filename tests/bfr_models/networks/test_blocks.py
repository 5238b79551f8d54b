"""Our U-Net and VQGAN against diffusers': the same parameters, and bit by bit the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bfr_models.networks.configs import UNetConfig, VQGANConfig
from bfr_models.networks.unet import UNet
from bfr_models.networks.vqgan import VQGAN


@pytest.fixture(scope="module")
def models() -> Any:
    """diffusers' own, which do not import beside a torchvision that does not."""
    try:
        from diffusers import models

        _ = models.UNet2DModel, models.VQModel
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers does not import here: {error}")
    return models


def same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    """Gives theirs our parameters, which have to be of the same names and shapes."""
    torch.manual_seed(0)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.2)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.eval(), theirs.eval()


def laid_out(x: Tensor, channels_last: bool) -> Tensor:
    return x.to(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("settings", "shift"),
    [
        ({"channels": (8, 16, 16), "attention_levels": (1,), "head_dim": 8, "layers_per_block": 2}, "scale_shift"),
        ({"channels": (16, 32), "attention_levels": (0, 1), "head_dim": 16, "scale_shift": False}, "default"),
    ],
)
def test_the_unet_is_diffusers(settings: dict[str, Any], shift: str, channels_last: bool, models: Any) -> None:
    config = UNetConfig(sample_size=16, norm_groups=8, **settings)
    names = ["Attn" if i in config.attention_levels else "" for i in range(len(config.channels))]
    reference = models.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=config.channels,
        layers_per_block=min(config.layers), attention_head_dim=config.head_dim, norm_num_groups=8,
        attn_norm_num_groups=8, norm_eps=1e-5, resnet_time_scale_shift=shift, downsample_padding=1,
        down_block_types=[f"{name}DownBlock2D" for name in names],
        up_block_types=[f"{name}UpBlock2D" for name in names[::-1]],
    )  # fmt: skip
    ours = UNet(config)
    same_parameters(ours.net, reference)
    x, t = laid_out(torch.randn(3, 3, 16, 16), channels_last), torch.tensor([0, 250, 999])
    with torch.no_grad():
        assert torch.equal(ours(x, t), reference(x, t).sample)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("attention", [True, False])
def test_the_vqgan_is_diffusers(attention: bool, channels_last: bool, models: Any) -> None:
    config = VQGANConfig(
        channels=(8, 16, 24), layers_per_block=1, latent_channels=4, codes=16, norm_groups=8, mid_attention=attention
    )
    reference = models.VQModel(
        block_out_channels=config.channels, layers_per_block=1, latent_channels=4, num_vq_embeddings=16,
        norm_num_groups=8, mid_block_add_attention=attention,
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
    )  # fmt: skip
    ours = VQGAN(config)
    same_parameters(ours.net, reference)
    image = laid_out(torch.randn(2, 3, 32, 32), channels_last)
    with torch.no_grad():
        z = ours.encode(image)
        assert z.shape == (2, 4, 8, 8) and torch.equal(z, reference.encode(image).latents)
        assert torch.equal(ours.decode(z), reference.decode(z, force_not_quantize=True).sample)


def test_codes_and_commitment_are_diffusers_without_its_old_mistake(models: Any) -> None:
    """`legacy=False`: beta weighs the encoder's term. 3 x 40 x 40 places are searched in more parts than one."""
    vqgan = VQGAN(VQGANConfig(channels=(8,), latent_channels=3, codes=16, norm_groups=8))
    nn.init.normal_(vqgan.codebook)
    z = torch.randn(3, 3, 40, 40)
    reference = models.autoencoders.vae.VectorQuantizer(16, 3, beta=0.25, legacy=False)
    reference.embedding.weight = vqgan.codebook
    expected, loss, (_, _, codes) = reference(z)
    quantised, numbers = vqgan.quantise(z)
    assert torch.equal(numbers.flatten(), codes)
    torch.testing.assert_close(quantised, expected, rtol=0, atol=1e-6)
    ours = 0.25 * (z - quantised.detach()).square().mean() + (quantised - z).square().mean()
    torch.testing.assert_close(ours, loss)
