"""DifFace (arXiv 2212.06512): blind face restoration with diffused error contraction.

    p(x_0 | y_0) ~ integral of p(x_N | y_0) prod_{t=1..N} p_theta(x_{t-1} | x_t)           (eq. 4)
    p(x_N | y_0) = N( sqrt(abar_N) f(y_0), (1 - abar_N) I )                                (eq. 5)

f is a regression network; p_theta are the last N steps of an unconditional diffusion model. Diffusing
shrinks the estimator's error e = x_0 - f(y_0) to sqrt(abar_N) e, below the noise; the chain then puts the
detail back that regression averaged away.

Notation: y_0 lq, f(y_0) estimate, N options.start_timestep, abar alphas_cumprod, eta options.eta.
"""

from __future__ import annotations

import torch

from bfr_models.methods._chain import Chain
from bfr_models.methods.estimator import Estimator
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.types import FaceBatch


class DifFace:
    """The estimator, the transition to x_N, and the truncated reverse chain."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size
        self._device = device
        self._estimator = Estimator(resolved, device)
        self._chain = Chain(resolved, device)

    @torch.inference_mode()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size); every draw comes from the face's own seed."""
        estimate = self._estimator.estimate(batch.images)
        restored = self._chain.run(estimate, RowNoise(batch.seeds, self._device))
        return batch.with_images(restored.cpu())
