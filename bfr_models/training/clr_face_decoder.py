"""CLR-Face's decoder by itself (arXiv 2402.06106), where its VQGAN's latents are to stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bfr_models.methods.clr_face_presets import CLRFacePreset
from bfr_models.networks.vqgan import VQGAN
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.draws import Draws
from bfr_models.training.estimator_unet import lattice, random_crops
from bfr_models.training.perceptual import load_perceptual_distance
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights


class Decoder(Component):
    """The whole VQGAN with a decoder that was trained further on clean faces; its encoder and its codes stay, and with
    them the latents on which the other networks were trained.

    L1 + w_d d + w_l l, with a perceptual distance d of crops at random places and a penalty l on the lattice of its
    strides (`estimator_unet.lattice`). No critic.
    """

    CROP = 96  # px of 128

    def __init__(
        self, preset: CLRFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(recipe, weights)
        self.preset = preset
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None
        self._built_on: dict[str, str] = {}

    def build(self) -> nn.Module:
        return VQGAN(self.preset.vqgan)

    def prepare(self, network: Any, gt: Tensor) -> None:
        """Begins with the VQGAN as it is."""
        path = require_weight(self.preset.weights["vqgan"])
        self._built_on = {path.name: load_weights(network, path)}
        network.requires_grad_(False)
        for part in (network.net.post_quant_conv, network.net.decoder):
            part.requires_grad_(True)

    def provenance(self) -> dict[str, Any]:
        return {"trained_with": self._built_on}

    def loss(self, network: Any, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        image = network(gt).image.float()
        loss = (image - gt).abs().mean() / 2 + self.weights.lattice * lattice(image - gt)  # L1 of values in [0, 1]
        if self.perceptual is not None:
            crops = random_crops(torch.cat([image, gt], dim=1), self.CROP * gt.shape[-1] // 128, draws)
            loss = loss + self.weights.perceptual * self.perceptual.to(gt.device)(*crops.chunk(2, dim=1))
        return loss

    def evaluate(self, network: Any, gt: Tensor, lq: Tensor) -> dict[str, float]:
        image = network(gt).image.clamp(-1, 1)
        metrics = {"psnr": psnr(image, gt)}
        if self.perceptual is not None:
            metrics["perceptual"] = float(self.perceptual.to(gt.device)(image, gt))
        return metrics

    def preview(self, network: Any, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [gt, network(gt).image.clamp(-1, 1)]
