"""The terms of a loss that keep a restored face like the clean one, and like the same person.

w_d d(x, gt) + w_phi mean(1 - cos(phi(x), phi(gt))),   d a perceptual distance, phi a recogniser
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.networks.mobile_face import crop_from_ffhq, identity_distance, load_mobile_face
from bfr_models.training.component import AuxiliaryWeights, LossWeights
from bfr_models.training.draws import Draws
from bfr_models.training.perceptual import load_perceptual_distance


class IdentityLoss:
    """Either term, both or none: as many as there are networks for. Faces are (B, 3, H, W) in [-1, 1], framed as
    FFHQ's."""

    def __init__(self, auxiliary: AuxiliaryWeights, weights: LossWeights) -> None:
        self.weights = weights
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None
        self.recogniser = load_mobile_face(auxiliary.recogniser) if auxiliary.recogniser else None

    def loss(self, restored: Tensor, gt: Tensor, draws: Draws) -> Tensor:
        """The weighted sum, with both faces seen in `one_view`."""
        loss = restored.new_zeros(())
        if self.perceptual is None and self.recogniser is None:
            return loss
        restored, gt = one_view(restored, gt, draws)
        if self.perceptual is not None:
            loss = loss + self.weights.perceptual * self.perceptual.to(gt.device)(restored, gt)
        if self.recogniser is not None:
            distances = identity_distance(self.recogniser.to(gt.device), restored, gt)
            loss = loss + self.weights.identity * distances.mean()
        return loss

    def cosines(self, gt: Tensor, **faces: Tensor) -> dict[str, float]:
        """Mean cos(phi(face), phi(gt)) by the faces' names; nothing without a recogniser."""
        if self.recogniser is None:
            return {}
        recogniser = self.recogniser.to(gt.device)
        target = recogniser(crop_from_ffhq(gt))
        return {name: float((recogniser(crop_from_ffhq(x)) * target).sum(dim=1).mean()) for name, x in faces.items()}


def one_view(restored: Tensor, gt: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Each pair a little turned, shifted and scaled, both faces alike, and the whole batch up to 3/8 smaller.

    Both networks read their input in strides: seen in one alignment only, the loss would reward a lattice of that
    stride, and a network would draw it.
    """
    n, side = len(gt), gt.shape[-1]
    angle, scale, x, y = (torch.tensor([0.1, 0.08, 0.06, 0.06]) * (2 * draws.uniform(4) - 1)).unbind(1)
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    theta = torch.stack([cos, -sin, x, sin, cos, y], dim=1).view(n, 2, 3).to(gt)
    grid = F.affine_grid(theta, list(gt.shape), align_corners=False)
    smaller = int(torch.randint(5 * side // 8, side + 1, (), generator=draws.common))

    def view(face: Tensor) -> Tensor:
        turned = F.grid_sample(face, grid, padding_mode="reflection", align_corners=False)
        return F.interpolate(turned, smaller, mode="bilinear", antialias=True)

    return view(restored), view(gt)
