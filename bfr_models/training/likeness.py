"""What a loss adds so that a restored face looks like the clean one, and like the same person."""

from __future__ import annotations

from torch import Tensor

from bfr_models.networks.mobile_face import identity_distance, load_mobile_face
from bfr_models.training.component import Aids
from bfr_models.training.perceptual import load_perceptual_distance


class Likeness:
    """Of a perceptual distance d and a recogniser phi, whichever were given as aids. Faces are (B, 3, H, W) in [-1, 1],
    in FFHQ's framing."""

    def __init__(self, aids: Aids, *, perceptual: float, identity: float) -> None:
        """`perceptual` and `identity` are the weights of the two terms."""
        self.weights = perceptual, identity
        self.perceptual = load_perceptual_distance(aids.perceptual) if aids.perceptual else None
        self.recogniser = load_mobile_face(aids.recogniser) if aids.recogniser else None

    def loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """w_d d(restored, gt) + w_phi mean(1 - cos(phi(restored), phi(gt)))"""
        loss = restored.new_zeros(())
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
        return {name: 1 - float(identity_distance(recogniser, face, gt).mean()) for name, face in faces.items()}
