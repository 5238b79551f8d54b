"""Rectified flow from a regression network's face to natural ones (PMRF, arXiv 2410.00418; rectified flow, arXiv
2209.03003).

    x_s = s z + (1 - s) x_0,    z = y + sigma n,    n ~ N(0, 1)         s from 1, where the face starts, down to 0
    v(x_s, s) = E[z - x_0 | x_s],    dx / ds = v

y, the mean of all faces that the degraded one may have been, is nearest to the true face, and smooth. The flow carries
such means to faces by nearly straight paths, and so hardly farther than it must: where a diffusion chain draws any
face that fits, this one draws one nearby. sigma makes the means cover what the faces cover. Images are in [-1, 1].
"""

from __future__ import annotations

from torch import Tensor

from bfr_models.diffusion.sampling import Model, Noise

SIGMA = 0.05
"""The noise at the start, 6 of 255 grey levels. The paper's for blind restoration is 0.1 of [0, 1] at 512 px; a pixel
at 128 px is the mean of 4 x 4 of those, which has a quarter of their noise."""

SPEED = 0.1
"""A network gives v in units of this, about what a face has to change by."""

TIMESTEPS = 1000
"""s = 1, as networks are told it."""


def flow_start(y: Tensor, noise: Tensor) -> Tensor:
    """z of faces y, (B, 3, H, W)."""
    return y + SIGMA * noise


def flow(model: Model, y: Tensor, steps: int, noise: Noise) -> Tensor:
    """x_0, clipped, by `steps` equal steps of Euler's rule from faces y, both (B, 3, H, W) in [-1, 1]; `model` is a
    network's (x, t) -> v / SPEED."""
    x = flow_start(y, noise(*y.shape[1:]))
    for step in range(steps, 0, -1):
        x = x - (SPEED / steps) * model(x, TIMESTEPS * step / steps)
    return x.clamp(-1, 1)
