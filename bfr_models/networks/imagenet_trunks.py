"""The convolutions of AlexNet, VGG-16 and SqueezeNet 1.1: the features that LPIPS compares.

Attribute names are those of torchvision's checkpoints; nothing of torchvision is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TrunkName = Literal["alex", "vgg", "squeeze"]

TAPS: dict[TrunkName, dict[int, int]] = {  # the layers of `features` that are compared, and their channels
    "alex": {1: 64, 4: 192, 7: 384, 9: 256, 11: 256},
    "vgg": {3: 64, 8: 128, 15: 256, 22: 512, 29: 512},
    "squeeze": {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512},
}


class Trunk(nn.Module):
    """(B, 3, H, W) normalised RGB -> the activations of its taps, (B, C, h, w) each, from fine to coarse.

    H and W of at least 32.
    """

    def __init__(self, name: TrunkName) -> None:
        super().__init__()
        layers = {"alex": _alex, "vgg": _vgg, "squeeze": squeeze_layers}[name]
        self.features = nn.Sequential(*layers())
        self._taps = frozenset(TAPS[name])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self._taps:
                found.append(x)
        return found


def _alex() -> Iterator[nn.Module]:
    yield from (nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
    yield from (nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
    for channels, out in ((192, 384), (384, 256), (256, 256)):
        yield from (nn.Conv2d(channels, out, 3, padding=1), nn.ReLU())


def _vgg() -> Iterator[nn.Module]:
    channels = 3
    for level, (out, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if level:
            yield nn.MaxPool2d(2, 2)
        for _ in range(depth):
            yield from (nn.Conv2d(channels, out, 3, padding=1), nn.ReLU())
            channels = out


def squeeze_layers() -> Iterator[nn.Module]:
    """The layers of SqueezeNet 1.1's `features`, in their order."""
    yield from (nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), _pool())
    yield from (_Fire(64, 16, 64), _Fire(128, 16, 64), _pool())
    yield from (_Fire(128, 32, 128), _Fire(256, 32, 128), _pool())
    yield from (_Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256))


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class _Fire(nn.Module):
    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)
