"""A small face recogniser that is differentiable: MobileFaceNet (arXiv 1804.07573) with squeeze-excitation.

The layers are those of Open Model Zoo's face-reidentification-retail-0095 (Apache-2.0), batch norms folded in; the
size is free.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.faces.template import FFHQ_5, TEMPLATE_SIDE
from bfr_models.networks.configs import MobileFaceConfig

SIDE = 128
TEMPLATE = (  # the five landmarks in the recogniser's crop, (x, y) in [0, 1], as Open Model Zoo documents them
    (0.31556875, 0.46157411),
    (0.68262292, 0.46157411),
    (0.50026250, 0.64050536),
    (0.34947187, 0.82469196),
    (0.65343645, 0.82325089),
)


class _Excitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.PReLU())
        self.excite = nn.Sequential(nn.Conv2d(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.excite(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))
        return x * scale


class _Bottleneck(nn.Module):
    """Expand, depthwise 3x3, project, excite; the input is added where the shape stays."""

    def __init__(self, channels: int, expanded: int, out: int, stride: int, squeezed: int) -> None:
        super().__init__()
        self.residual = stride == 1 and channels == out
        self.layers = nn.Sequential(
            nn.Conv2d(channels, expanded, 1), nn.PReLU(),
            nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded), nn.PReLU(),
            nn.Conv2d(expanded, out, 1),
            _Excitation(out, squeezed),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileFace(nn.Module):
    """(B, 3, 128, 128) RGB in [-1, 1], five-point aligned -> (B, embedding) of unit length."""

    def __init__(self, config: MobileFaceConfig | None = None) -> None:
        super().__init__()
        c = config or MobileFaceConfig()
        layers: list[nn.Module] = [nn.Conv2d(3, c.stem, 3, 2, 1), nn.PReLU()]
        layers += [nn.Conv2d(c.stem, c.stem, 3, 1, 1, groups=c.stem), nn.PReLU()]
        channels = c.stem
        for out, first, expanded, blocks, squeezed in c.stages:
            for block in range(blocks):
                expansion, stride = (expanded, 1) if block else (first, 2)
                layers.append(_Bottleneck(channels, expansion, out, stride, squeezed))
                channels = out
        place = SIDE // 2 ** (1 + len(c.stages))  # what is left of the side
        layers += [nn.Conv2d(channels, c.head, 1), nn.PReLU(), nn.Conv2d(c.head, c.head, place, groups=c.head)]
        layers += [nn.Conv2d(c.head, c.embedding, 1, bias=False)]
        self.scale, self.shift = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.zeros(3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, 128, 128) in the recogniser's own framing -> (B, embedding)."""
        bgr = ((image + 1) * 127.5).flip(1)
        return F.normalize(self.layers(bgr * self.scale + self.shift).flatten(1).float(), dim=1)


def crop_from_ffhq(face: Tensor) -> Tensor:
    """(B, 3, S, S) in FFHQ's framing -> (B, 3, 128, 128) in the recogniser's; differentiable."""
    own, ffhq = np.array(TEMPLATE), FFHQ_5 / TEMPLATE_SIDE
    affine = np.linalg.lstsq(np.c_[own, np.ones(5)], ffhq, rcond=None)[0].T  # own -> FFHQ, both in [0, 1]
    linear, offset = affine[:, :2], affine[:, 2]
    matrix = np.c_[linear, linear.sum(axis=1) + 2 * offset - 1]  # the same between [-1, 1] and [-1, 1]
    theta = torch.tensor(matrix, dtype=face.dtype, device=face.device).expand(len(face), -1, -1)
    grid = F.affine_grid(theta, [len(face), 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(face, grid, padding_mode="border", align_corners=False)


def identity_distance(recogniser: nn.Module, image: Tensor, reference: Tensor) -> Tensor:
    """(B,) values of 1 - cos(phi(image), phi(reference)) of two batches of faces in FFHQ's framing."""
    with torch.no_grad():
        target = recogniser(crop_from_ffhq(reference))
    return 1 - (recogniser(crop_from_ffhq(image)) * target).sum(dim=1)


def load_mobile_face(path: Path) -> MobileFace:
    """The frozen recogniser with the weights of a safetensors file, strictly."""
    network = MobileFace()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UsageError(f"expected a MobileFace recogniser's weights at {path}, found: {error}") from None
    return network.requires_grad_(False).eval()
