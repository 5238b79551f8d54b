"""The U-Net behind its pixel-unshuffle."""

from dataclasses import replace

import pytest
import torch

from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.unet import UNet

TINY = UNetConfig(sample_size=16, channels=(8, 16), attention_levels=(1,), head_dim=8, norm_groups=8)


@torch.inference_mode()
def test_the_face128_network_predicts_noise_of_the_pictures_shape() -> None:
    assert UNet(DIFFACE[0].prior)(torch.rand(2, 3, 128, 128), torch.tensor([0, 150])).shape == (2, 3, 128, 128)


@torch.inference_mode()
def test_every_picture_is_denoised_at_its_own_timestep() -> None:
    network = UNet(TINY)
    x = torch.rand(1, 3, 16, 16).expand(2, -1, -1, -1)
    early, late = network(x, torch.tensor([10, 500]))
    assert not torch.allclose(early, late)
    # one picture alone or among others: float32 sums in another order
    torch.testing.assert_close(late, network(x[:1], torch.tensor([500]))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_the_network_inside_works_on_unshuffled_pixels(unshuffle: int) -> None:
    network = UNet(replace(TINY, sample_size=16 * unshuffle, unshuffle=unshuffle))
    seen = []
    network.net.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    side = 16 * unshuffle
    assert network(torch.rand(1, 3, side, side), torch.tensor([5])).shape == (1, 3, side, side)
    assert seen == [(1, 3 * unshuffle**2, 16, 16)]


def test_a_condition_enters_with_the_input_and_does_not_leave_with_the_noise() -> None:
    network = UNet(replace(TINY, condition_channels=3))
    assert network(torch.rand(1, 6, 16, 16), torch.tensor([5])).shape == (1, 3, 16, 16)
