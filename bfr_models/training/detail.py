"""The network that draws a restored face at twice its side, behind a frozen regression network of half of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import EstimatorPreset
from bfr_models.networks.detail import DetailNetwork
from bfr_models.networks.estimators import build_estimator
from bfr_models.pixels import resize
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.draws import Draws
from bfr_models.training.estimator_unet import crops_at, features_weight
from bfr_models.training.perceptual import load_perceptual_distance
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights


class Detail(Component):
    """L1 between g(y, c) and x, more of it where eyes, nose and mouth are, and a perceptual distance, both of a crop at
    a random place: what the finest octave lacks is seen there.

    The coarse face c is the regression network's, moved towards the true one by up to `NEARER` of its error: what it
    shows is to be believed.
    """

    CROP = 128  # px of 256
    NEARER = 0.5

    def __init__(
        self, preset: EstimatorPreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        if preset.detail is None:
            raise UsageError(f"expected a preset with a detail network, found {preset.name}")
        super().__init__(recipe, weights)
        self.preset, self.config = preset, preset.detail
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None
        self._given = auxiliary.estimator

    def build(self) -> nn.Module:
        return DetailNetwork(self.config)

    def prepare(self, network: nn.Module, gt: Tensor) -> None:
        estimator = build_estimator(self.config.estimator)
        path = self._given or require_weight(self.preset.weights["detail_estimator"])
        self._built_on = {path.name: load_weights(estimator, path)}
        self._estimator = estimator.requires_grad_(False).eval().to(gt.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def provenance(self) -> dict[str, Any]:
        return {"trained_with": self._built_on}

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        coarse = self._coarse(lq)
        share = self.NEARER * draws.uniform(1, 1, 1).to(coarse)
        coarse = coarse + share * (resize((gt + 1) / 2, coarse.shape[-1]) - coarse)
        weight = features_weight(gt.shape[-1]).to(gt).expand(len(gt), 1, -1, -1)
        (lq, gt, weight), coarse = self._crops([(lq + 1) / 2, (gt + 1) / 2, weight], coarse, draws)
        drawn = network(lq, coarse).float()
        loss = (weight * (drawn - gt).abs()).mean()
        if self.perceptual is not None:
            loss = loss + self.weights.perceptual * self.perceptual.to(gt.device)(drawn * 2 - 1, gt * 2 - 1)
        return loss

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """`_up`: the coarse face as a bicubic resize enlarges it, which a network has to beat."""
        coarse = self._coarse(lq)
        made = {"": self._draw(network, lq, coarse), "_up": resize(coarse, gt.shape[-1]).clamp(0, 1) * 2 - 1}
        metrics = {f"psnr{name}": psnr(image, gt) for name, image in made.items()}
        if self.perceptual is not None:
            distance = self.perceptual.to(gt.device)
            metrics |= {f"perceptual{name}": float(distance(image, gt)) for name, image in made.items()}
        return metrics

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        coarse = self._coarse(lq)
        return [lq, resize(coarse, gt.shape[-1]).clamp(0, 1) * 2 - 1, self._draw(network, lq, coarse), gt]

    @torch.no_grad()
    def _coarse(self, lq: Tensor) -> Tensor:
        """(B, 3, H/2, W/2) in [0, 1]"""
        half = resize((lq + 1) / 2, lq.shape[-1] // 2)
        restored: Tensor = self._estimator(half.contiguous(memory_format=torch.channels_last)).float()
        return restored.clamp(0, 1)

    def _crops(self, images: list[Tensor], coarse: Tensor, draws: Draws) -> tuple[list[Tensor], Tensor]:
        """Of each face the same place, which the networks' strides divide."""
        size = images[0].shape[-1]
        crop = self.CROP * size // 256
        tops, lefts = (STRIDE * draws.integers(0, (size - crop) // STRIDE + 1) for _ in range(2))
        cut = [crops_at(image, crop, tops, lefts) for image in images]
        return cut, crops_at(coarse, crop // 2, tops // 2, lefts // 2)

    def _draw(self, network: nn.Module, lq: Tensor, coarse: Tensor) -> Tensor:
        return network((lq + 1) / 2, coarse).float().clamp(0, 1) * 2 - 1


STRIDE = 8  # px
