"""AdaFace's recogniser (arXiv 2204.00964): an improved residual network of 50 layers.

Attribute names are those of AdaFace's `adaface_ir50_ms1mv2.ckpt`, without the `model.` before them.
"""

from __future__ import annotations

from torch import Tensor, nn

from bfr_models.networks.frozen_batch_norm import FrozenBatchNorm
from bfr_models.networks.iresnet import EMBEDDING, ImprovedResNet


class AdaFace(ImprovedResNet):
    """(B, 3, 112, 112) RGB in [-1, 1], five-point aligned -> (B, 512) of unit length.

    Trained on BGR, so the channels are reversed here. The vector's norm before scaling, which AdaFace reads as the
    image's quality, is not returned.
    """

    def __init__(self) -> None:
        super().__init__(_residual, FrozenBatchNorm(EMBEDDING, affine=False))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(1))


def _residual(channels: int, out: int, stride: int) -> nn.Sequential:
    """Norm, 3x3, norm, PReLU, 3x3, norm."""
    return nn.Sequential(
        FrozenBatchNorm(channels),
        nn.Conv2d(channels, out, 3, 1, 1, bias=False),
        FrozenBatchNorm(out),
        nn.PReLU(out),
        nn.Conv2d(out, out, 3, stride, 1, bias=False),
        FrozenBatchNorm(out),
    )
