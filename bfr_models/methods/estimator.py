"""DifFace's regression network f(y_0) alone: the faithful but over-smooth baseline."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.difface_presets import EstimatorPreset
from bfr_models.methods.preset import EstimateOptions
from bfr_models.networks.estimators import build_estimator
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch


class Estimator:
    """x = f(y0): a SwinIR trained with L1, or a convolutional U-Net."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._device, self._options = device, cast(EstimateOptions, resolved.options)
        config = cast(EstimatorPreset, resolved.preset).estimator
        self._network = load_component(build_estimator(config), resolved, "estimator", device)

    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size)."""
        return batch.with_images(self.estimate(self.resized(batch.images)).cpu())

    def resized(self, images: Tensor) -> Tensor:
        """y0 at the network's size on its device; not clipped, because the authors' networks expect the overshoot."""
        return resize(images.to(self._device), self.size).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def estimate(self, lq: Tensor) -> Tensor:
        """f(y0) of `resized` faces; [-1, 1] in and out."""
        with autocast(self._device, self._options.precision):
            return estimate_of(self._network, lq, self_ensemble=self._options.self_ensemble)


def estimate_of(network: nn.Module, lq: Tensor, *, self_ensemble: bool = False) -> Tensor:
    """f(y0) by a network that works in [0, 1]; (B, 3, H, W) in [-1, 1] in and out. See `EstimateOptions`."""
    hq: Tensor = network((lq + 1) / 2).float()
    if self_ensemble:
        hq = (hq + network((lq.flip(-1) + 1) / 2).float().flip(-1)) / 2
    return hq.clamp(0, 1) * 2 - 1
