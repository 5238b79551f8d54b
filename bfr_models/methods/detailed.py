"""Any method of small faces at twice their side: it restores, and a network that all of them share draws the finest
octave (`bfr_models.networks.detail`). Ours; no paper has it."""

from __future__ import annotations

from typing import cast

import torch

from bfr_models.methods._loading import autocast, load_component
from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.detail import DetailNetwork
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch, Restorer


class Detailed:
    """x = g(y, f(y at half the side)), where f is the method."""

    def __init__(self, coarse: Restorer, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._coarse, self._device, self._precision = coarse, device, resolved.options.precision
        config = cast(DetailConfig, resolved.preset.detail)
        self._network = load_component(DetailNetwork(config), resolved, "detail", device)

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size)"""
        lq = resize(batch.images.to(self._device), self.size).to(memory_format=torch.channels_last)
        coarse = self._coarse.restore(batch).images.to(self._device, memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            drawn = self._network((lq + 1) / 2, (coarse + 1) / 2).float()
        return batch.with_images((drawn.clamp(0, 1) * 2 - 1).cpu())
