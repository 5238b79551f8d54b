"""Any method of small faces at twice their side. Ours; no paper has it.

    c = f(y_2), e = r(y_2)              y_2 is the face at half the side, f the method, r the regression network
    x = g(y, e) + up(c - e)

g draws the finest octave (`bfr_models.networks.detail`). It knows the faces of the regression network, behind which it
was trained: a sharper one, as a diffusion chain's is, it takes for the start of more than there is. What the method has
changed of the estimate is enlarged and added.
"""

from __future__ import annotations

from typing import cast

import torch
from torch.nn.functional import interpolate

from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.estimator import Estimator
from bfr_models.networks.configs import DetailConfig
from bfr_models.networks.detail import DetailNetwork
from bfr_models.networks.estimators import build_estimator
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch, Restorer


class Detailed:
    """A method, followed by the network of the finest octave."""

    def __init__(self, method: Restorer, resolved: ResolvedMethod, device: str) -> None:
        config = cast(DetailConfig, resolved.preset.detail)
        self.size = resolved.preset.size
        self._method, self._device, self._precision = method, device, resolved.options.precision
        self._network = load_component(DetailNetwork(config), resolved, "detail", device)
        self._estimator = None  # where the method is the regression network itself
        if not isinstance(method, Estimator):
            network = build_estimator(config.estimator)
            self._estimator = load_component(network, resolved, "detail_estimator", device)

    @torch.no_grad()  # not inference_mode: a guided method needs gradients
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size)"""
        lq = resize(batch.images.to(self._device), self.size).clamp(-1, 1)
        half = resize(lq, self.size // 2)
        coarse = (self._method.restore(batch.with_images(half)).images.to(self._device) + 1) / 2
        lq, half = ((image.to(memory_format=torch.channels_last) + 1) / 2 for image in (lq, half))
        with autocast(self._device, self._precision):
            estimate = coarse if self._estimator is None else self._estimator(half).float().clamp(0, 1)
            drawn = self._network(lq, estimate).float()
        drawn = drawn + interpolate(coarse - estimate, lq.shape[-2:], mode="bicubic")
        return batch.with_images((drawn.clamp(0, 1) * 2 - 1).cpu())
