"""A perceptual distance that nothing here was trained by: features of a tiny autoencoder for natural pictures.

taef2 (MIT, https://github.com/madebyollin/taesd) squeezes a picture to an eighth of its size and draws it again from
that, so what its encoder keeps is what a picture looks like. No loss, no judge and no other figure looks through it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 64
COMPARED = (1, 5, 9)  # of the layers: what leaves the blocks at full, half and quarter size


class Block(nn.Module):
    """relu(three convolutions + skip)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def _shrink() -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False)


class AutoencoderDistance:
    """(B, 3, H, W) twice, RGB in [-1, 1] -> a mean distance, as LPIPS compares features (arXiv 1801.03924, eq. 1)."""

    def __init__(self, weights: Path) -> None:
        layers = [nn.Conv2d(3, CHANNELS, 3, padding=1), Block()]
        for _ in range(2):
            layers += [_shrink(), Block(), Block(), Block()]
        self._layers = nn.Sequential(*layers)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        self._layers.load_state_dict({name: state[name].float() for name in self._layers.state_dict()})
        self._layers.eval()

    @torch.inference_mode()
    def __call__(self, image: Tensor, clean: Tensor) -> float:
        x = (torch.cat([image, clean]) + 1) / 2
        total = 0.0
        for number, layer in enumerate(self._layers):
            x = layer(x)
            if number in COMPARED:
                ours, theirs = F.normalize(x, dim=1, eps=1e-6).chunk(2)
                total += float((ours - theirs).square().sum(dim=1).mean())
        return total
