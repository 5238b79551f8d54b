"""The network of the finest octave: where training starts, what it may take over from the degraded face."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.detail import DetailNetwork
from bfr_models.networks.drawing_unet import smooth

TINY = DetailConfig(channels=(8, 12), blocks=(1, 1), half_channels=4, full_channels=4)


def test_the_face256_network_has_its_size_and_draws_at_twice_the_side() -> None:
    network = DetailNetwork(DetailConfig())
    assert sum(p.numel() for p in network.parameters()) == 896_828
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 32)).shape == (1, 3, 64, 64)


def test_training_starts_from_the_enlarged_face_and_reaches_every_weight() -> None:
    torch.manual_seed(0)
    network = DetailNetwork(TINY)
    lq, gt, coarse = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 16, 16)
    assert torch.equal(network(lq, coarse), F.interpolate(coarse, (32, 32), mode="bicubic"))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):  # the last layer, which is 0, then those before it
        optimizer.zero_grad()
        (network(lq, coarse) - gt).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_its_gate_takes_over_what_is_finer_than_the_coarse_face_and_nothing_else() -> None:
    network = DetailNetwork(TINY)
    last = network.at_full[-1]
    last.bias.data[3] = 1.0  # the gate, wide open
    lq, coarse = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 16, 16)
    taken = network(lq, coarse) - F.interpolate(coarse, (32, 32), mode="bicubic")
    torch.testing.assert_close(taken, lq - smooth(lq, 2))
    flat = torch.full_like(lq, 0.3)
    torch.testing.assert_close(network(flat, coarse), F.interpolate(coarse, (32, 32), mode="bicubic"))
