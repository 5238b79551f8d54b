"""DifFace (arXiv 2212.06512) for inpainting: holes are filled, and known pixels are kept to the last bit.

The estimator is LaMa on the image and its mask M (1 in the holes). Every predicted x_0 takes one step down the
gradient of its error on the known pixels; the authors choose gamma = 1/2:

    x_0 <- x_0 - gamma d/dx_0 sum (1 - M) (x_0 - y_0)^2  =  M x_0 + (1 - M) y_0      for gamma = 1/2

so the known pixels are replaced by y_0, while eps stays as predicted.

Notation: y_0 lq, M holes, f estimate.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from bfr_models.methods._loading import load_component
from bfr_models.methods.difface import TruncatedChain
from bfr_models.methods.difface_presets import InpaintPreset
from bfr_models.networks.lama import LaMa
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch


class DifFaceInpaint:
    """LaMa's estimate, diffused and denoised inside the holes.

    LaMa runs in float32 whatever `precision` says: it is called once, and half-precision Fourier transforms are rare.
    """

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._device = device
        preset = cast(InpaintPreset, resolved.preset)
        self._lama = load_component(LaMa(preset.estimator), resolved, "estimator", device)
        self._chain = TruncatedChain(resolved, device)

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, size, size) in [-1, 1], with `masks` or with holes of pure black -> the same with the holes filled."""
        lq = batch.images.to(self._device).clamp(-1, 1)
        holes = black_pixels(lq) if batch.masks is None else batch.masks.to(self._device) == 1

        def keep_known(pred_xstart: Tensor) -> Tensor:
            return torch.where(holes, pred_xstart, lq)

        noise = self._chain.noise(batch)
        x_n = self._chain.diffuse(self._estimate(lq, holes), noise)
        # The last step gives the edited x_0 as it is, so known pixels need not be put back once more.
        return batch.with_images(self._chain.reverse(x_n, noise, keep_known).cpu())

    def _estimate(self, lq: Tensor, holes: Tensor) -> Tensor:
        """f in [-1, 1]; LaMa itself works in [0, 1] and sees the holes black."""
        image = ((lq + 1) / 2).masked_fill(holes, 0)
        estimate: Tensor = self._lama(image.to(memory_format=torch.channels_last), holes.to(lq.dtype))
        return estimate * 2 - 1


def black_pixels(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 1, H, W) bool: where all three channels are at their minimum, as holes are
    marked in the authors' test images."""
    return (images == -1).all(dim=1, keepdim=True)
