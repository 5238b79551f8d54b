"""The convolutional estimator: where training starts, what its tail sees, which sizes it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.networks.unet_estimator import SMOOTHINGS, UNetEstimator

TINY = UNetEstimatorConfig(channels=(8, 12, 16), blocks=(1, 1, 1), half_channels=8, full_channels=6, coarsest=2)


def randomised(config: UNetEstimatorConfig) -> UNetEstimator:
    """Nothing 0, as after some training."""
    torch.manual_seed(0)
    network = UNetEstimator(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def test_the_face128_network_has_its_size_and_maps_faces_to_faces() -> None:
    network = UNetEstimator(UNetEstimatorConfig())
    assert sum(p.numel() for p in network.parameters()) == 6_352_669
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 128, 128)).shape == (1, 3, 128, 128)


def test_training_starts_from_the_identity_and_reaches_every_weight() -> None:
    torch.manual_seed(0)
    network = UNetEstimator(TINY)
    lq, gt = torch.rand(2, 2, 3, 32, 32)
    assert torch.equal(network(lq), lq)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):  # the last layer, which is 0, then those before it
        optimizer.zero_grad()
        (network(lq) - gt).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_tail_sees_past_the_seams_of_the_tokens() -> None:
    """Without its U-Net, a pixel at a seam of the 4 x 4 px follows those across it, on all sides alike."""
    network = randomised(TINY)
    nn.init.zeros_(network.to_half.weight)
    lq = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(lq)[0, 0, 16, 16].backward()
    assert lq.grad is not None
    reached = lq.grad[0].abs().sum(0) > 0
    assert reached[12:20, 12:20].all() and reached.sum() < 32 * 32


@pytest.mark.parametrize("levels", [2, 3])
def test_every_pixel_can_follow_every_other(levels: int) -> None:
    """So that an eye may know of the mouth: the coarsest level sees the whole face."""
    config = replace(
        TINY, channels=TINY.channels[:levels], blocks=(1, 1, 3)[-levels:], coarsest=32 // 2 ** (levels + 1)
    )
    network = randomised(config)
    lq = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(lq)[0, 0, 0, 0].backward()
    assert lq.grad is not None and (lq.grad[0].abs().sum(0) > 0).all()


def test_it_takes_other_sizes_than_that_of_its_map_of_places() -> None:
    network = randomised(TINY).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_a_face_is_restored_alike_in_any_batch() -> None:
    network = randomised(TINY).eval()
    lq = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(lq)[1:2], network(lq[1:2]))


def test_noise_is_taken_away_by_a_choice_alone() -> None:
    """With the gate of 4 px wide open and nothing drawn, white noise keeps at most a quarter, and a level stays."""
    network = UNetEstimator(TINY)
    bias = network.at_full[-1].bias
    assert isinstance(bias, torch.Tensor)
    nn.init.zeros_(network.at_full[-1].weight)  # type: ignore[arg-type]
    with torch.inference_mode():
        bias[3 + SMOOTHINGS.index(4)] = 1
        torch.manual_seed(0)
        noisy = 0.5 + 0.1 * torch.randn(1, 3, 64, 64)
        smooth = network(noisy)
    assert float(smooth.std()) < 0.25 * float(noisy.std())
    assert float(smooth.mean()) == pytest.approx(float(noisy.mean()), abs=1e-3)
