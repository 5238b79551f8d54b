"""A perceptual distance for training: differences between the features of SqueezeNet 1.1 (arXiv 1602.07360).

It compares features as LPIPS does, but without its learned weights: it is not LPIPS and is never reported as such.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.networks.imagenet_trunks import squeeze_layers

CAFFE_MEAN = (104.0, 117.0, 123.0)  # BGR, of [0, 255]
LAYERS = (1, 4, 7, 9)  # of `features`, whose output is compared: from edges to parts of a face


def feature_distance(features: Tensor, of: Tensor) -> Tensor:
    """(B,) between (B, C, H, W) twice, as LPIPS has it (arXiv 1801.03924, eq. 1) without weights: squared differences
    of what has unit length over the channels, summed over these and averaged over the places."""
    a, b = (F.normalize(x.float(), dim=1, eps=1e-6) for x in (features, of))
    return (a - b).square().sum(dim=1).mean(dim=(1, 2))


class PerceptualDistance(nn.Module):
    """(B, 3, H, W) twice, RGB in [-1, 1] -> a mean distance; the network is frozen."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*islice(squeeze_layers(), LAYERS[-1] + 1))
        self.register_buffer("mean", torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor, gt: Tensor) -> Tensor:
        pairs = zip(self._activations(image), self._activations(gt), strict=True)
        return torch.stack([feature_distance(a, b).mean() for a, b in pairs]).sum()

    def _activations(self, image: Tensor) -> list[Tensor]:
        x = (image + 1) * 127.5
        x = x.flip(1) - self.mean
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in LAYERS:
                found.append(x)
        return found


def load_perceptual_distance(path: Path) -> PerceptualDistance:
    """The distance with SqueezeNet 1.1's weights of a Caffe-style training, keys as torchvision names them."""
    distance = PerceptualDistance()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"expected SqueezeNet weights at {path}, found none that read ({error})") from None
    wanted = distance.state_dict().keys()
    if missing := sorted(wanted - state.keys()):
        raise UsageError(f"expected SqueezeNet 1.1 weights at {path}, found none of {missing[:3]}")
    distance.load_state_dict({name: state[name].float() for name in wanted})
    return distance.eval()
