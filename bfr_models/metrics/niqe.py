"""NIQE (Mittal, Soundararajan, Bovik 2013): how far an image's statistics are from those of pristine photographs.

It needs no reference and no download, because the authors' pristine model ships in the package. Lower is better; good
photos score 2 to 5. It knows nothing of faces, so read it as a trend. Arithmetic is float64, as in the authors' MATLAB
code; blocks of 96 px without overlap, two scales, 36 features a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bfr_models.pixels import Uint8Image
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights

BLOCK = 96
PRISTINE = "niqe-pristine"
_FEATURES = 36
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # offsets; the products with these pixels are fitted
_SHAPES = np.arange(200, 10001) / 1000  # of the asymmetric generalised Gaussians that are fitted

_FLAT = 1e-9  # of a normalised level; what is smaller is rounding

Colour = Literal["y", "gray"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NiqeScore:
    """The score, or None with the reason."""

    value: float | None
    why: str | None = None


def niqe(image: Uint8Image, colour: Colour = "y") -> NiqeScore:
    """The score of (H, W, 3) uint8 RGB, of at least two whole blocks of 96 x 96.

    `colour` decides by several per cent: "y" is the luma of 16 to 235 that BasicSR takes by default, and with it the
    papers of face restoration; "gray" is the luma of 0 to 255, as the authors. Equal to BasicSR's to 1e-5, but for
    areas of one level: there BasicSR fits its own rounding, and the two differ by up to 1e-2.
    """
    rows, columns = (side // BLOCK for side in image.shape[:2])
    if rows * columns < 2:
        return NiqeScore(None, f"NIQE needs two blocks of {BLOCK} x {BLOCK} px, found {image.shape[1]} x "
                               f"{image.shape[0]} px")  # fmt: skip
    levels = _grey(image[: rows * BLOCK, : columns * BLOCK], colour)
    with np.errstate(invalid="ignore", divide="ignore"):  # a block that cannot be fitted is nan, and left out below
        features = np.concatenate([_features(levels, BLOCK), _features(_half(levels), BLOCK // 2)], axis=1)
    fitted = features[~np.isnan(features).any(axis=1)]
    if len(fitted) < 2:
        return NiqeScore(None, f"NIQE needs two blocks with texture, found {len(fitted)}: the picture is flat")
    mean, covariance = _pristine()
    away = np.nanmean(features, axis=0) - mean
    inverse = np.linalg.pinv((covariance + np.cov(fitted, rowvar=False)) / 2)
    return NiqeScore(float(np.sqrt(away @ inverse @ away)))


class PristineModel(nn.Module):
    """Mean (36,) and covariance (36, 36), float64, of the features of pristine photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(_FEATURES, dtype=torch.float64), requires_grad=False)
        self.covariance = nn.Parameter(torch.zeros(_FEATURES, _FEATURES, dtype=torch.float64), requires_grad=False)


@lru_cache(maxsize=1)
def _pristine() -> tuple[Floats, Floats]:
    model = PristineModel()
    load_weights(model, require_weight(PRISTINE))
    return model.mean.numpy(), model.covariance.numpy()


def _grey(image: Uint8Image, colour: Colour) -> Tensor:
    """(H, W) float64, rounded to whole levels."""
    weights, offset = ((65.481, 128.553, 24.966), 16) if colour == "y" else ((76.245, 149.685, 29.07), 0)
    return torch.from_numpy(np.round(image @ (np.array(weights) / 255) + offset))


def _features(levels: Tensor, side: int) -> Floats:
    """(blocks, 18) of one scale, in any order of blocks that is the same at both."""
    mean = _blur(levels)
    deviation = (_blur(levels**2) - mean**2).abs().sqrt()
    normalised = ((levels - mean) / (deviation + 1)).numpy()  # equation 1
    normalised[np.abs(normalised) < _FLAT] = 0  # of one level all around: neither above its mean nor below
    height, width = normalised.shape
    blocks = normalised.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side, side)
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean_product = (right - left) * np.exp(_log_gamma(2 / shape) - _log_gamma(1 / shape))  # equation 8
        features += [shape, mean_product, left, right]
    return np.stack(features, axis=1)


def _fit(blocks: Floats) -> tuple[Floats, Floats, Floats]:
    """Shape, left and right scale (n,) of each block's asymmetric generalised Gaussian, by its moments; or nan."""
    values = blocks.reshape(len(blocks), -1)
    squares = values**2
    left = np.sqrt(np.sum(squares, axis=1, where=values < 0) / np.sum(values < 0, axis=1))
    right = np.sqrt(np.sum(squares, axis=1, where=values > 0) / np.sum(values > 0, axis=1))
    ratio = left / right
    moments = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = _SHAPES[np.abs(_moments_of_shapes() - moments[:, None]).argmin(axis=1)]
    scale = np.exp((_log_gamma(1 / shape) - _log_gamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


@lru_cache(maxsize=1)
def _moments_of_shapes() -> Floats:
    one, two, three = (_log_gamma(k / _SHAPES) for k in (1, 2, 3))
    return np.exp(2 * two - one - three)


def _log_gamma(x: Floats) -> Floats:
    return torch.lgamma(torch.from_numpy(x)).numpy()


def _blur(levels: Tensor) -> Tensor:
    """7 x 7 Gaussian of sigma 7 / 6, the border repeated."""
    weights = torch.exp(-0.5 * ((torch.arange(7, dtype=torch.float64) - 3) / (7 / 6)) ** 2)
    return _filter(F.pad(levels[None, None], (3, 3, 3, 3), mode="replicate"), weights / weights.sum(), stride=1)


def _half(levels: Tensor) -> Tensor:
    """MATLAB's imresize by 0.5: bicubic (a = -1/2), antialiased, mirrored at the border."""
    t = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / 2
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    mirrored = torch.from_numpy(np.pad(levels.numpy(), 3, mode="symmetric"))
    return _filter(mirrored[None, None], torch.where(t <= 1, near, far) / 2, stride=2)


def _filter(padded: Tensor, weights: Tensor, stride: int) -> Tensor:
    down = F.conv2d(padded, weights.view(1, 1, -1, 1), stride=(stride, 1))
    return F.conv2d(down, weights.view(1, 1, 1, -1), stride=(1, stride))[0, 0]
