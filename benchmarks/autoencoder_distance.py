"""A perceptual distance that nothing here was trained by: features of a tiny autoencoder for natural pictures.

taef2 (MIT, https://github.com/madebyollin/taesd) squeezes a picture to an eighth of its size and draws it again from
that, so what its encoder keeps is what a picture looks like. No loss, no judge and no other figure looks through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn

from bfr_models.training.perceptual import feature_distance

CHANNELS = 64
COMPARED = (1, 5, 9)  # of the layers: what leaves the blocks at full, half and quarter size


def _block() -> nn.Module:
    return AutoencoderTinyBlock(CHANNELS, CHANNELS, "relu")


def _shrink() -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False)


class AutoencoderDistance:
    def __init__(self, weights: Path) -> None:
        layers = [nn.Conv2d(3, CHANNELS, 3, padding=1), _block()]
        for _ in range(2):
            layers += [_shrink(), _block(), _block(), _block()]
        self._layers = nn.Sequential(*layers)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        self._layers.load_state_dict({name: state[name].float() for name in self._layers.state_dict()})
        self._layers.eval()

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor], clean: Tensor) -> list[float]:
        """Of each (1, 3, H, W), RGB in [-1, 1], to `clean`, which is as large."""
        x = (torch.cat([*images, clean]) + 1) / 2
        total = torch.zeros(len(images))
        for number, layer in enumerate(self._layers):
            x = layer(x)
            if number in COMPARED:
                total += feature_distance(x[:-1], x[-1:])
        return total.tolist()
