"""CLR-Face's components that guide: a recogniser, distilled from one whose licence keeps it out of the package, and the
mask of where its gradient may change a latent. The paper's own objectives are not published; these are ours.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.diffusion.guidance import identity_gradient
from bfr_models.diffusion.sampling import Noise
from bfr_models.diffusion.times import FIRST_TIME
from bfr_models.errors import UsageError
from bfr_models.methods.clr_face_presets import CLRFacePreset
from bfr_models.networks.estimators import build_estimator
from bfr_models.networks.latent_networks import LatentMask, LatentScore, conditioned
from bfr_models.networks.mobile_face import MobileFace, crop_from_ffhq, identity_distance, load_mobile_face
from bfr_models.networks.vqgan import VQGAN
from bfr_models.rng import RowNoise
from bfr_models.training.clr_face import OnLatents
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe
from bfr_models.training.draws import Draws
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance


class DistilledRecogniser(Component):
    """A recogniser whose weights may ship: mean 1 - cos(student(x), teacher(x)) over clean faces, degraded faces, and
    mixtures of two, which stand for more people than the training set has."""

    def __init__(
        self, preset: CLRFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(recipe, weights)
        self.config = preset.recogniser
        self._teacher_file = auxiliary.recogniser

    def build(self) -> nn.Module:
        network = MobileFace(self.config)
        nn.init.constant_(network.scale, 1 / 127.5)  # [0, 255] to [-1, 1]
        nn.init.constant_(network.shift, -1)
        for layer in _convolutions(network):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return network

    def prepare(self, network: Any, gt: Tensor) -> None:
        if self._teacher_file is None:
            raise UsageError("expected a teacher to distil, found none; name its weights with --recogniser")
        self._teacher = load_mobile_face(self._teacher_file).to(gt.device)
        unit_variance(network, crop_from_ffhq(gt))

    def provenance(self) -> dict[str, Any]:
        assert self._teacher_file is not None
        with self._teacher_file.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"distilled_from": {"name": self._teacher_file.stem, "sha256": sha256}}

    def loss(self, network: Any, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        mixed = torch.lerp(gt, _other_of_pair(gt, draws), draws.uniform(1, 1, 1).to(gt))
        return self._distances(network, torch.cat([gt, lq, mixed])).mean()

    def evaluate(self, network: Any, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """Mean cosines to the teacher, and how well the student's cosines between people follow the teacher's."""
        cosines = {name: 1 - float(self._distances(network, x).mean()) for name, x in (("gt", gt), ("lq", lq))}
        crops = crop_from_ffhq(gt)
        pairs = [e @ e.T for e in (network(crops), self._teacher(crops))]
        upper = torch.triu_indices(len(gt), len(gt), 1)
        correlation = torch.corrcoef(torch.stack([p[upper[0], upper[1]] for p in pairs]))[0, 1]
        return {f"cosine_{name}": value for name, value in cosines.items()} | {"correlation": float(correlation)}

    def preview(self, network: Any, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [gt, lq, torch.lerp(gt, gt.roll(1, 0), 0.5)]

    def _distances(self, network: Any, faces: Tensor) -> Tensor:
        crops = crop_from_ffhq(faces)
        with torch.no_grad():
            target = self._teacher(crops)
        return 1 - (network(crops) * target).sum(dim=1)


class Mask(OnLatents):
    """Where the identity gradient may change a latent. The IRN's latent, diffused to t, takes one guided step

        z_0' = z_0 - `GUIDANCE` sigma(t) / alpha(t) m g,   t uniform in `TIMES`,

    whose cost is 1 - cos(phi(G(z_0')), phi(x)) + w_d d(G(z_0'), x) + w_m mean(m). phi is the auxiliary recogniser where
    one is given, preferably not the one that guides; d is the perceptual distance where its network is given, about
    four times LPIPS.

    Before anything else compare `identity_ones` with `identity_zeros`. With face128 a mask shuts over the face where
    the guided step is too long for its own gradient, and shuts everywhere where it is too short to matter, as every
    step is below t = 0.05.
    """

    TIMES = (0.02, 0.3)
    GUIDANCE = 0.05
    EVALUATED = 16  # held-out faces: each costs a pass through the decoder and back

    def __init__(
        self, preset: CLRFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(preset, auxiliary, recipe, weights)
        self._auxiliary = auxiliary
        self.perceptual: PerceptualDistance | None = None

    def build(self) -> nn.Module:
        return LatentMask(self.preset.mask, self.preset.vqgan.latent_channels)

    def prepare(self, network: Any, gt: Tensor) -> None:
        preset, device = self.preset, gt.device
        self._vqgan = self._frozen("vqgan", VQGAN(preset.vqgan), device)
        self._score = self._frozen("score", LatentScore(preset.score, preset.vqgan.latent_channels), device)
        self._irn = self._frozen("irn", build_estimator(preset.irn), device)
        self._guide = self._frozen("recogniser", MobileFace(preset.recogniser), device)
        judge = self._auxiliary.recogniser
        self._judge = load_mobile_face(judge).to(device) if judge else self._guide
        if self._auxiliary.perceptual:
            self.perceptual = load_perceptual_distance(self._auxiliary.perceptual).to(device)

    def loss(self, network: Any, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        low, high = self.TIMES
        t = max(low + (high - low) * float(torch.rand((), generator=draws.common)), FIRST_TIME)
        step = self._guided_step(lq, t, draws)
        mask = network(step.degraded, step.estimate)
        identity, perceptual = self._scores(step, mask, gt)
        return identity + self.weights.perceptual * perceptual + self.weights.sparsity * mask.mean()

    def evaluate(self, network: Any, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """With the mask as it is, all open, and all shut."""
        gt, lq = gt[: self.EVALUATED], lq[: self.EVALUATED]
        t = sum(self.TIMES) / 2
        step = self._guided_step(lq, t, RowNoise(range(len(lq))))
        mask = network(step.degraded, step.estimate)
        metrics = {"mask_mean": float(mask.mean()), "mask_std": float(mask.std())}
        for name, used in (("", mask), ("_ones", torch.ones_like(mask)), ("_zeros", torch.zeros_like(mask))):
            identity, perceptual = self._scores(step, used, gt)
            metrics |= {f"identity{name}": 1 - float(identity), f"perceptual{name}": float(perceptual)}
        return metrics

    def preview(self, network: Any, gt: Tensor, lq: Tensor) -> list[Tensor]:
        recovered, degraded, estimate = self._conditions(lq)
        mask = F.interpolate(network(degraded, estimate), gt.shape[-2:]).expand(-1, 3, -1, -1)
        return [lq, recovered, mask * 2 - 1, gt]

    @torch.no_grad()
    def _conditions(self, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The IRN's face, and what the mask sees: z_y and z_irn."""
        recovered = self._recovered(lq)
        degraded, estimate = self._encode(torch.cat([lq, recovered])).chunk(2)
        return recovered, degraded, estimate

    def _encode(self, image: Tensor) -> Tensor:
        return self._score.normalise(self._vqgan.encode(image).float())

    def _decode(self, z: Tensor) -> Tensor:
        return self._vqgan.decode(self._score.denormalise(z)).float()

    def _guided_step(self, lq: Tensor, t: float, noise: Noise) -> _GuidedStep:
        recovered, degraded, estimate = self._conditions(lq)
        level = self.sde.level(t)
        with torch.no_grad():
            target = self._guide(crop_from_ffhq(recovered))
            z = level.diffuse(estimate, noise(*estimate.shape[1:]).to(estimate))
        model = conditioned(self._score, self._score.condition(degraded, estimate))
        eps, gradient = identity_gradient(model, self._embed, z, level, target)
        push = self.GUIDANCE * level.sigma / level.alpha * gradient
        return _GuidedStep(degraded, estimate, level.predict_start(z, eps), push)

    def _embed(self, start: Tensor) -> Tensor:
        return self._guide(crop_from_ffhq(self._decode(start)))

    def _scores(self, step: _GuidedStep, mask: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """(identity distance, perceptual distance) to the clean face, after the masked step."""
        image = self._decode(step.start - mask * step.push)
        perceptual = self.perceptual(image, gt) if self.perceptual is not None else torch.zeros(())
        return identity_distance(self._judge, image, gt).mean(), perceptual


class _GuidedStep(NamedTuple):
    """All (B, C, h, w): the conditions of the mask, z_0 as predicted, and w(t) / alpha(t) g."""

    degraded: Tensor
    estimate: Tensor
    start: Tensor
    push: Tensor


def _other_of_pair(faces: Tensor, draws: Draws) -> Tensor:
    """Of the first face of a batch the second, and the other way round; of the third the fourth..."""
    other = (draws.numbers ^ 1).clamp(max=draws.batch_size - 1) - draws.numbers[0]
    if other.min() < 0 or other.max() >= len(faces):
        raise UsageError(f"expected an even number of faces at a time, to mix them in pairs, got {len(faces)}")
    return faces[other.to(faces.device)]


def _convolutions(network: Any) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def unit_variance(network: Any, crops: Tensor) -> None:
    """Scales each convolution so that its output on `crops` has unit variance (arXiv 1511.06422): without norm layers
    nothing else sees to that."""

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        std = output.std().clamp_min(1e-6)
        layer.get_parameter("weight").div_(std)
        return output / std

    hooks = [layer.register_forward_hook(scale) for layer in _convolutions(network)]
    network(crops)
    for hook in hooks:
        hook.remove()
