"""What a century in an archive does to a print before it is scanned: halftone, paper grain, scratches, dust.

Lengths are in pixels of a 512 px face and scale with it. The ranges are ours, chosen by eye beside scanned prints.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bfr_models.degradation.presets import REFERENCE_SIZE
from bfr_models.pixels import Uint8Image, resize

Values = NDArray[np.floating]
"""(H, W, 3) of levels in [0, 1], or (H, W)."""

_Damage = Callable[[Values, float, np.random.Generator], Values]


def age(image: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    """Damages (H, W, 3) uint8 RGB, grey or coloured, by each kind with its probability, equally in all channels."""
    scale = max(image.shape[:2]) / REFERENCE_SIZE
    x: Values = image.astype(np.float32) / 255
    for probability, damage in _DAMAGES:
        if rng.random() < probability:
            x = damage(x, scale, rng)
    return (x * 255).round().clip(0, 255).astype(np.uint8)


def _halftone(x: Values, scale: float, rng: np.random.Generator) -> Values:
    """A screen of dots, strongest in the middle tones, as print has none in black and white."""
    period, angle, strength = rng.uniform(8, 24) * scale, rng.uniform(0, np.pi / 2), rng.uniform(0.1, 0.5)
    rows, columns = np.indices(x.shape[:2], dtype=np.float32) * np.float32(2 * np.pi / period)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    screen = (np.cos(along) + np.cos(across)) / 2
    return x + strength * screen[..., None] * 4 * x * (1 - x)


def _grain(x: Values, scale: float, rng: np.random.Generator) -> Values:
    """Grey noise of paper or film: normal, on a grid coarser than a pixel."""
    step = max(1.0, rng.uniform(3, 12) * scale)
    height, width = (max(2, round(side / step)) for side in x.shape[:2])
    noise = rng.standard_normal((1, 1, height, width), dtype=np.float32)
    return x + rng.uniform(0.01, 0.06) * resize(torch.from_numpy(noise), x.shape[:2]).numpy()[0, 0, ..., None]


def _scratches(x: Values, scale: float, rng: np.random.Generator) -> Values:
    """One to four bent lines right across, light or dark."""
    rows, columns = np.indices(x.shape[:2], dtype=np.float32)
    side = max(x.shape[:2])
    for _ in range(rng.integers(1, 5)):
        angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2)
        from_middle_x, from_middle_y = columns - rng.uniform(0, side), rows - rng.uniform(0, side)
        along = from_middle_x * np.cos(angle) + from_middle_y * np.sin(angle)
        across = from_middle_y * np.cos(angle) - from_middle_x * np.sin(angle) + bend * along**2 / side
        half = rng.uniform(1, 5) * scale
        cover = (half + 0.5 - np.abs(across)).clip(0, min(1.0, 2 * half))  # of each pixel by the line
        x = _towards(x, cover * rng.uniform(0.4, 1), _ink(rng))
    return x


def _dust(x: Values, scale: float, rng: np.random.Generator) -> Values:
    """Some specks, light or dark."""
    rows, columns = np.indices(x.shape[:2], dtype=np.float32)
    for _ in range(rng.integers(2, 13)):
        row, column = rng.uniform(0, x.shape[0]), rng.uniform(0, x.shape[1])
        radius = rng.uniform(2, 9) * scale
        distance = np.hypot(rows - row, columns - column)
        x = _towards(x, (radius + 0.5 - distance).clip(0, 1) * rng.uniform(0.4, 1), _ink(rng))
    return x


def _towards(x: Values, cover: Values, ink: float) -> Values:
    return x + cover[..., None] * (ink - x)


def _ink(rng: np.random.Generator) -> float:
    return float(rng.choice([rng.uniform(0, 0.2), rng.uniform(0.7, 1)], p=[0.3, 0.7]))


_DAMAGES: tuple[tuple[float, _Damage], ...] = ((0.25, _halftone), (0.6, _grain), (0.4, _scratches), (0.4, _dust))
