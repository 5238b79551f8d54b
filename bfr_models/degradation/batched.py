"""The classical degradation (`degrade`) of a whole batch on its device, for training where faces outrun the CPUs.

The same ranges, the same resizes as matrices, the same noise, and a JPEG in torch (`jpeg`): equal in distribution, not
in its draws. Pictures in the middle have sizes of their own; those of about one size are padded to one, as a JPEG's
last blocks are, and go together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bfr_models.degradation.degrade import kernel_width, middle_matrices
from bfr_models.degradation.jpeg import jpeg
from bfr_models.degradation.presets import REFERENCE_SIZE, Preset, get_preset

_PADDED = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640)
"""Sides that pictures in the middle are padded to."""


class BatchedDegradation:
    """Degrades faces of `size` px, each by one of the presets, drawn evenly."""

    def __init__(self, presets: Sequence[str], size: int, device: torch.device | str) -> None:
        """ValueError for presets that age their faces: that is done on the CPU alone."""
        self._presets = [get_preset(name) for name in presets]
        if aged := [preset.name for preset in self._presets if preset.aged]:
            raise ValueError(f"expected presets that age no face, got {', '.join(aged)}")
        self._size, self._device = size, torch.device(device)
        self._scale = size / REFERENCE_SIZE
        self._width = max(kernel_width(preset, size) for preset in self._presets)
        self._matrices: dict[tuple[int, float, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, gt: Tensor, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        """(B, 3, size, size) in [-1, 1] -> the same, at the levels of 8-bit images. `noise` is of the device."""
        chosen = rng.integers(len(self._presets), size=len(gt))

        def uniform(range_of: Callable[[Preset], tuple[float, float]]) -> NDArray[np.float64]:
            low, high = np.array([range_of(preset) for preset in self._presets])[chosen].T
            return rng.uniform(low, high)

        x = self._blurred(gt.add(1).div(2), uniform, rng, chosen)
        factor = np.array([self._scale if preset.scales_downsample else 1.0 for preset in self._presets])[chosen]
        middle = (self._size // (uniform(lambda p: p.downsample) * factor)).astype(int).clip(1)
        delta = uniform(lambda p: p.noise) / 255
        quality = uniform(lambda p: (p.quality[0], p.quality[1] + 1)).astype(int)
        enlargement = np.maximum(1.0, 1 / factor)
        sides = np.array(_PADDED)[np.searchsorted(_PADDED, middle)]
        lq = torch.empty_like(x)
        for side in np.unique(sides).tolist():
            some = np.flatnonzero(sides == side)
            there, back = self._stacked(middle[some].tolist(), enlargement[some].tolist(), side)
            members, sizes, deltas, qualities = map(self._moved, (some, middle[some], delta[some], quality[some]))
            small = there @ x[members] @ there.mT
            grain = torch.randn(small.shape, generator=noise, device=self._device)
            small = (small + grain * deltas.float().view(-1, 1, 1, 1)).clamp(0, 1).mul(255).round()
            lq[members] = back @ (jpeg(_edges_repeated(small, sizes), qualities) / 255) @ back.mT
        return lq.mul(255).round().clamp(0, 255).div(127.5).sub(1)

    def _blurred(
        self,
        x: Tensor,
        uniform: Callable[[Callable[[Preset], tuple[float, float]]], NDArray[np.float64]],
        rng: np.random.Generator,
        chosen: NDArray[np.int64],
    ) -> Tensor:
        """Each by a Gaussian of its own (see `kernels.gaussian_kernel`)."""
        isotropic = rng.random(len(x)) < np.array([preset.isotropic_probability for preset in self._presets])[chosen]
        sigma_x, sigma_y = uniform(lambda p: p.sigma), uniform(lambda p: p.sigma_y or p.sigma)
        rotation = uniform(lambda p: p.rotation)
        drawn = np.stack([sigma_x, np.where(isotropic, sigma_x, sigma_y)]) * self._scale
        (x_sigma, y_sigma), angle = self._moved(drawn).float()[:, :, None, None], self._moved(rotation).float()
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        pad = self._width // 2
        place = torch.arange(-pad, pad + 1, device=self._device)
        along, across = place * cos + place[:, None] * sin, -place * sin + place[:, None] * cos
        kernels = torch.exp(-0.5 * ((along / x_sigma) ** 2 + (across / y_sigma) ** 2))
        kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(3, 0)[:, None]
        padded = F.pad(x, (pad,) * 4, mode="reflect")
        return F.conv2d(padded.reshape(1, -1, *padded.shape[2:]), kernels, groups=len(kernels)).view_as(x)

    def _stacked(self, middle: list[int], enlargement: list[float], side: int) -> tuple[Tensor, Tensor]:
        """(n, 1, side, size) to the pictures in the middle, and (n, 1, size, side) back; nothing beyond their sizes."""
        found = [self._padded(to, larger, side) for to, larger in zip(middle, enlargement, strict=True)]
        there, back = zip(*found, strict=True)
        return torch.stack(there)[:, None], torch.stack(back)[:, None]

    def _padded(self, to: int, enlargement: float, side: int) -> tuple[Tensor, Tensor]:
        if (key := (to, enlargement, side)) not in self._matrices:
            there, back = (matrix.float() for matrix in middle_matrices(to, self._size, enlargement))
            padded = F.pad(there, (0, 0, 0, side - to)), F.pad(back, (0, side - to))
            self._matrices[key] = padded[0].to(self._device), padded[1].to(self._device)
        return self._matrices[key]

    def _moved(self, values: NDArray[Any]) -> Tensor:
        """On the device, which is not waited for."""
        there = torch.from_numpy(values)
        return there.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else there


def _edges_repeated(images: Tensor, sizes: Tensor) -> Tensor:
    """(B, C, S, S): each fills its first size x size pixels; its last row and column are repeated to the edges."""
    batch, channels, side, _ = images.shape
    places = torch.minimum(torch.arange(side, device=images.device), sizes[:, None] - 1)
    rows = images.gather(2, places[:, None, :, None].expand(batch, channels, side, side))
    return rows.gather(3, places[:, None, None, :].expand(batch, channels, side, side))
