"""LPIPS v0.1 (arXiv 1801.03924): a perceptual distance between two images of one shape; 0 for equal ones.

    d(x, y) = sum over layers l of mean over places of w_l . (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2

The trunk is an ImageNet network, the weights w are the authors' (in the package). Faces go in at their own size;
face restoration papers report `lpips_vgg`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bfr_models.metrics._float32 import float32_inference
from bfr_models.networks.imagenet_trunks import TAPS, Trunk, TrunkName
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights

WEIGHTS: dict[TrunkName, str] = {"alex": "lpips-alexnet", "vgg": "lpips-vgg16", "squeeze": "lpips-squeezenet"}
"""Stem of each trunk's weight file; `find_weight` says whether it is installed."""

HEADS = "lpips-heads"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1], before the trunk
_EPSILON = 1e-10


class LPIPS(nn.Module):
    """The distance over one trunk; `name` and `sha256` (of the trunk's weights) belong to every figure."""

    sha256: str | None = None
    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: TrunkName) -> None:
        super().__init__()
        self.name = f"lpips_{trunk}"
        self.trunk = Trunk(trunk)
        self.heads = _heads(trunk)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor, gt: Tensor) -> Tensor:
        """(B, 3, H, W) twice, RGB in [-1, 1] -> (B,) distances, each as if it were alone in the batch."""
        if images.shape != gt.shape:
            raise ValueError(f"expected pictures of one shape, got {tuple(images.shape)} and {tuple(gt.shape)}")
        with float32_inference(self.shift.device):
            pairs = zip(self._features(images), self._features(gt), self.heads.parameters(), strict=True)
            layers = [((x - y) ** 2 * head).sum(dim=1).mean(dim=(1, 2)) for x, y, head in pairs]
            return torch.stack(layers).sum(dim=0)

    def _features(self, images: Tensor) -> list[Tensor]:
        activations = self.trunk((images.to(self.shift) - self.shift) / self.scale)
        return [x / (x.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON) for x in activations]


class LPIPSHeads(nn.ModuleDict):
    """The authors' weights of all three trunks: `vgg.2` are those of VGG's third layer, (1, C, 1, 1), none below 0."""

    def __init__(self) -> None:
        layers = {name: (torch.zeros(1, c, 1, 1) for c in taps.values()) for name, taps in TAPS.items()}
        super().__init__({name: nn.ParameterList(weights) for name, weights in layers.items()})


def load_lpips(trunk: TrunkName, device: str = "cpu") -> LPIPS:
    """The distance, ready on its device. UsageError, which says how to get them, where the trunk's weights are not."""
    path = require_weight(WEIGHTS[trunk])
    lpips = LPIPS(trunk)
    lpips.sha256 = load_weights(lpips.trunk, path)
    return lpips.to(device).eval()


def _heads(trunk: TrunkName) -> nn.ParameterList:
    heads = LPIPSHeads()
    load_weights(heads, require_weight(HEADS))
    return cast(nn.ParameterList, heads[trunk])
