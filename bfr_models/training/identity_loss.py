"""What a loss adds so that a restored face looks like the clean one, and like the same person."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.networks.mobile_face import crop_from_ffhq, identity_distance, load_mobile_face
from bfr_models.training.component import Aids
from bfr_models.training.perceptual import load_perceptual_distance


class Likeness:
    """Of a perceptual distance d and a recogniser phi, whichever were given as aids. Faces are (B, 3, H, W) in [-1, 1],
    in FFHQ's framing."""

    def __init__(self, aids: Aids, *, perceptual: float, identity: float, grain: int = 1) -> None:
        """`perceptual` and `identity` are the weights of the two terms. What is finer than `grain` px they do not see:
        it is left to the pixels' own loss."""
        self.weights, self.grain = (perceptual, identity), grain
        self.perceptual = load_perceptual_distance(aids.perceptual) if aids.perceptual else None
        self.recogniser = load_mobile_face(aids.recogniser) if aids.recogniser else None

    def loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """w_d d(restored, gt) + w_phi mean(1 - cos(phi(restored), phi(gt))), both seen in `one_view`."""
        loss = restored.new_zeros(())
        if self.perceptual is None and self.recogniser is None:
            return loss
        restored, gt = one_view(*(F.avg_pool2d(x, self.grain, stride=1) for x in (restored, gt)))
        if self.perceptual is not None:
            loss = loss + self.weights[0] * self.perceptual.to(gt.device)(restored, gt)
        if self.recogniser is not None:
            loss = loss + self.weights[1] * identity_distance(self.recogniser.to(gt.device), restored, gt).mean()
        return loss

    def cosines(self, gt: Tensor, **faces: Tensor) -> dict[str, float]:
        """Mean cos(phi(face), phi(gt)) by the faces' names; nothing without a recogniser."""
        if self.recogniser is None:
            return {}
        recogniser = self.recogniser.to(gt.device)
        target = recogniser(crop_from_ffhq(gt))
        return {name: float((recogniser(crop_from_ffhq(x)) * target).sum(dim=1).mean()) for name, x in faces.items()}


def one_view(restored: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Each pair turned, shifted and scaled by chance, alike and a little, and all made up to 3/8 smaller.

    Both networks take their input in strides: seen in one alignment alone, a lattice of their stride would be worth
    drawing.
    """
    n, side = len(gt), gt.shape[-1]
    angle, scale, x, y = (most * (2 * torch.rand(n) - 1) for most in (0.1, 0.08, 0.06, 0.06))
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    theta = torch.stack([cos, -sin, x, sin, cos, y], dim=1).view(n, 2, 3).to(gt)
    grid = F.affine_grid(theta, list(gt.shape), align_corners=False)
    smaller = int(torch.randint(5 * side // 8, side + 1, ()))

    def view(face: Tensor) -> Tensor:
        turned = F.grid_sample(face, grid, padding_mode="reflection", align_corners=False)
        return F.interpolate(turned, smaller, mode="bilinear", antialias=True)

    return view(restored), view(gt)
