"""RRDBNet against the same network as a function of named tensors, written from the papers alone."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet

State = dict[str, Tensor]


def conv(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def dense(state: State, name: str, x: Tensor) -> Tensor:
    x1 = F.leaky_relu(conv(state, f"{name}.conv1", x), 0.2)
    x2 = F.leaky_relu(conv(state, f"{name}.conv2", torch.cat([x, x1], 1)), 0.2)
    x3 = F.leaky_relu(conv(state, f"{name}.conv3", torch.cat([x, x1, x2], 1)), 0.2)
    x4 = F.leaky_relu(conv(state, f"{name}.conv4", torch.cat([x, x1, x2, x3], 1)), 0.2)
    return x + 0.2 * conv(state, f"{name}.conv5", torch.cat([x, x1, x2, x3, x4], 1))


def enlarged(state: State, image: Tensor, factor: int, blocks: int) -> Tensor:
    if factor == 2:  # each 2 x 2 square becomes four channels of its colour, row by row
        x = torch.stack([image[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], dim=1)
    else:
        x = image
    first = x = conv(state, "conv_first", x)
    for block in range(blocks):
        inner = x
        for number in (1, 2, 3):
            inner = dense(state, f"body.{block}.rdb{number}", inner)
        x = x + 0.2 * inner
    x = first + conv(state, "conv_body", x)
    for layer in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(state, layer, x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv(state, "conv_last", F.leaky_relu(conv(state, "conv_hr", x), 0.2))


@pytest.mark.parametrize("factor", [2, 4])
@torch.inference_mode()
def test_it_computes_what_the_papers_say(factor: Literal[2, 4]) -> None:
    torch.manual_seed(factor)
    network = RRDBNet(RRDBNetConfig(factor, channels=6, growth=4, blocks=2)).double()
    image = torch.rand(2, 3, 8, 6, dtype=torch.float64)
    result = network(image)
    assert result.shape == (2, 3, factor * 8, factor * 6)
    torch.testing.assert_close(result, enlarged(network.state_dict(), image, factor, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("factor", "parameters"), [(2, 16_703_171), (4, 16_697_987)])
def test_the_published_size(factor: Literal[2, 4], parameters: int) -> None:
    with torch.device("meta"):
        network = RRDBNet(RRDBNetConfig(factor))
    assert sum(p.numel() for p in network.parameters()) == parameters
