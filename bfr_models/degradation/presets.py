"""Degradation presets, named after the papers whose training ranges or test sets they hold.

All ranges are for 512 px faces, and so is what they do to a smaller one: it comes out as if it had been degraded at
512 px and then shrunk. The blur and the downsampling factor r are scaled with the face, so that the small picture in
the middle has 512 / r px whatever the face's size; there the noise is added and the JPEG made, both as they are. The
presets `*_extreme` do not scale r, so that of a 128 px face only a quarter as much is left.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import pi

from bfr_models.errors import unknown

REFERENCE_SIZE = 512


@dataclass(frozen=True)
class Preset:
    """Ranges of y = { [ (x * k_sigma) down_r + n_delta ]_JPEG_q } up_r, each drawn uniformly."""

    name: str
    source: str
    sigma: tuple[float, float]  # blur, px at 512; x and y apart when anisotropic
    downsample: tuple[float, float]  # r; below 1 enlarges
    noise: tuple[float, float]  # delta, grey levels of 255
    quality: tuple[int, int]  # JPEG q
    kernel_width: int = 41  # px at 512
    isotropic_probability: float = 0.5
    rotation: tuple[float, float] = (-pi, pi)  # theta of the kernel, radians
    sigma_y: tuple[float, float] | None = None  # of y, where it differs from x
    aged: bool = False  # damaged first, as a print in an archive ages
    scales_downsample: bool = True  # r is meant for 512 px; False: for a face of any size


@dataclass(frozen=True)
class Grid:
    """A test set: every combination of some values, the first one changing slowest; one cell per row.

    Only sigma_y is drawn: from sigma_x's values, by Python's generator with the seed of the authors' script, so that it
    equals theirs.
    """

    name: str
    source: str
    quality: tuple[int, ...]  # JPEG q
    downsample: tuple[float, ...]  # r
    noise: tuple[float, ...]  # delta, grey levels of 255
    sigma_x: tuple[float, ...]  # blur, px at 512
    rotation: tuple[float, ...]  # theta, radians
    seed: int

    @cached_property
    def cells(self) -> tuple[Preset, ...]:
        """In order; the ranges of each are single points."""
        sigma_y = random.Random(self.seed)
        return tuple(
            Preset(
                self.name, self.source, (x, x), (r, r), (delta, delta), (q, q), isotropic_probability=0,
                rotation=(theta, theta), sigma_y=(y := sigma_y.choice(self.sigma_x), y),
            )
            for q, r, delta, x, theta in product(
                self.quality, self.downsample, self.noise, self.sigma_x, self.rotation
            )
        )  # fmt: skip


_GFPGAN = Preset("gfpgan", "GFPGAN, options/train_gfpgan_v1.yml", (0.1, 10), (0.8, 8), (0, 20), (60, 100))
_DIFFACE = Preset("difface", "DifFace, arXiv 2212.06512", (0.1, 15), (0.8, 32), (0, 20), (30, 100))

PRESETS = {
    preset.name: preset
    for preset in (
        _GFPGAN,  # in the middle, a face crop of 640 to 64 px
        _DIFFACE,  # of 640 to 16 px
        replace(_GFPGAN, name="archive", source="GFPGAN's, of prints that have aged", aged=True),
        replace(_GFPGAN, name="gfpgan_extreme", scales_downsample=False),  # of a 128 px face, 160 to 16 px
        replace(_DIFFACE, name="difface_extreme", scales_downsample=False),  # 160 to 4 px
        Preset("codeformer_large", "CodeFormer, stage III 'large' branch", (1, 15), (4, 30), (0, 20), (30, 80)),
        Preset(
            "resshift_test", "ResShift, scripts/prepare_testing_celeba_faceir.py", (4, 16), (1, 32), (1, 20), (30, 70),
            isotropic_probability=0, rotation=(0, pi),
        ),
    )
}  # fmt: skip

GRIDS = {
    grid.name: grid
    for grid in (
        Grid(
            "difface_test", "DifFace, scripts/prepare_testing_restoration.py: 4,000 faces of CelebA",
            quality=(30, 40, 50, 60, 70), downsample=tuple(range(4, 41, 4)), noise=(1, 5, 10, 15, 20),
            sigma_x=(4, 8, 12, 16), rotation=(0, pi / 4, pi / 2, 3 * pi / 4), seed=10000,
        ),
    )
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset of that name that draws from ranges; the error for an unknown name lists the known ones."""
    if name not in PRESETS:
        raise unknown("degradation preset", name, list(PRESETS))
    return PRESETS[name]


def preset_of_row(name: str, row: int) -> Preset:
    """The preset of that name; for a grid, the cell of row `row` of the dataset, starting over after the last."""
    if name in GRIDS:
        cells = GRIDS[name].cells
        return cells[row % len(cells)]
    if name not in PRESETS:
        raise unknown("degradation preset", name, [*PRESETS, *GRIDS])
    return PRESETS[name]
