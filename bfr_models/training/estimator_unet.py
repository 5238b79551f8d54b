"""The convolutional regression network of small faces."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.faces.template import FFHQ_5, TEMPLATE_SIDE
from bfr_models.methods.difface_presets import EstimatorPreset
from bfr_models.methods.estimator import estimate_of
from bfr_models.networks.configs import UNetEstimatorConfig
from bfr_models.networks.unet_estimator import UNetEstimator
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.draws import Draws
from bfr_models.training.perceptual import load_perceptual_distance

PERIODS = (8, 16)  # px, with those that divide them: the coarsest level of a face128 network works at 16


class UNetRegression(Component):
    """L1 between f(y) and x, more of it where eyes, nose and mouth are, and beside it a perceptual distance of crops at
    random places, so that none of the lattice of its strides is worth drawing: from step `PERCEPTUAL_FROM` of a fresh
    network, at once of one that starts from weights. With it comes a penalty on the network's own lattice, which
    passes for texture (see `lattice`)."""

    PERCEPTUAL_FROM = 1000
    CROP = 96  # px of 128

    def __init__(self, preset: EstimatorPreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights):
        if not isinstance(preset.estimator, UNetEstimatorConfig):
            raise UsageError(
                f"expected a preset with a convolutional estimator, found {preset.name}; train its `estimator`"
            )
        super().__init__(recipe, weights)
        self.config = preset.estimator
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None
        self._steps = 0

    def build(self) -> nn.Module:
        return UNetEstimator(self.config)

    def initialise(self, network: nn.Module, weights: Path) -> None:
        super().initialise(network, weights)
        self._steps = self.PERCEPTUAL_FROM

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        restored = network((lq + 1) / 2).float() * 2 - 1
        loss = (self._attention(gt) * (restored - gt).abs()).mean() / 2  # L1 of values in [0, 1]
        if self.perceptual is not None and self._steps >= self.PERCEPTUAL_FROM:
            crops = random_crops(torch.cat([restored, gt], dim=1), self.CROP * gt.shape[-1] // 128, draws)
            loss = loss + self.weights.perceptual * self.perceptual.to(gt.device)(*crops.chunk(2, dim=1))
            loss = loss + self.weights.lattice * lattice(restored - gt)
        return loss

    def after_step(self, network: nn.Module, learning_rate: float, draws: Draws) -> None:
        self._steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._steps = state["steps"]

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        restored = self._restore(network, lq)
        metrics = {"psnr": psnr(restored, gt), "psnr_lq": psnr(lq, gt)}
        if self.perceptual is not None:
            distance = self.perceptual.to(gt.device)
            metrics |= {"perceptual": float(distance(restored, gt)), "perceptual_lq": float(distance(lq, gt))}
        return metrics

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [lq, self._restore(network, lq), gt]

    def _restore(self, network: nn.Module, lq: Tensor) -> Tensor:
        return estimate_of(network, lq)

    @staticmethod
    def _attention(gt: Tensor) -> Tensor:
        return features_weight(gt.shape[-1]).to(gt.device)


def lattice(error: Tensor) -> Tensor:
    """Mean square of what of the error comes back every 8 and every 16 px; of what does not, 0 on average.

    (B, C, H, W); H and W multiples of 16, at least 32.

    A network that shuffles channels to pixels can draw a weave at the periods of its levels, which perceptual distances
    take for texture. As in an analysis of variance, the pixels at one place of each period are a group: how far the
    groups' means lie apart, less what they would by chance.
    """
    fine = error - F.avg_pool2d(error, 5, stride=1, padding=2, count_include_pad=False)
    return torch.stack([_repeated(fine, period) for period in PERIODS]).sum()


def _repeated(x: Tensor, period: int) -> Tensor:
    """Within parts of eight periods, since a weave may change its sign from hair to skin."""
    groups = F.pixel_unshuffle(x.flatten(0, 1)[:, None], period)  # (B C, period^2, H / period, W / period)
    side = min(8, *groups.shape[-2:])
    means, squares = (F.avg_pool2d(y, side, stride=max(1, side // 2)) for y in (groups, groups.square()))
    between = (means - means.mean(dim=1, keepdim=True)).square()
    within = squares - means.square()
    return (between - within / (side**2 - 1)).mean()


@lru_cache
def features_weight(size: int) -> Tensor:
    """(size, size), 1 on average: three times as much at the middle of an eye, the nose and the mouth as far from them,
    in FFHQ's framing, falling as a Gaussian of 1/16 of the side."""
    eyes_nose, mouth = FFHQ_5[:3], FFHQ_5[3:]
    points = torch.from_numpy(np.array([*eyes_nose, *mouth, mouth.mean(axis=0)])) / TEMPLATE_SIDE
    places = (torch.arange(size) + 0.5) / size
    x, y = (places - points[:, :1]) * 16, (places - points[:, 1:]) * 16
    bumps = torch.exp(-(y[:, :, None].square() + x[:, None, :].square()) / 2).amax(0).float()
    weight = 1 + 2 * bumps
    return weight / weight.mean()


def random_crops(images: Tensor, side: int, draws: Draws) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), each at a place of its own."""
    height, width = images.shape[-2:]
    tops, lefts = draws.integers(0, height - side + 1), draws.integers(0, width - side + 1)
    return crops_at(images, side, tops, lefts)


def crops_at(images: Tensor, side: int, tops: Tensor, lefts: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), each at its place; `tops` and `lefts` are (B,)."""
    places = zip(images, tops.tolist(), lefts.tolist(), strict=True)
    return torch.stack([image[:, top : top + side, left : left + side] for image, top, left in places])
