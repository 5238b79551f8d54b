"""Degradation presets, named after the papers whose training ranges they hold.

All ranges are for 512 px faces. Lengths in pixels (blur sigma, kernel width) scale with the face;
the downsampling factor, the noise level and the JPEG quality do not depend on its size.
"""

from __future__ import annotations

from dataclasses import dataclass

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


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("gfpgan", "GFPGAN, options/train_gfpgan_v1.yml", (0.1, 10), (0.8, 8), (0, 20), (60, 100)),
        Preset("difface", "DifFace, arXiv 2212.06512", (0.1, 15), (0.8, 32), (0, 20), (30, 100)),
        Preset("codeformer_large", "CodeFormer, stage III 'large' branch", (1, 15), (4, 30), (0, 20), (30, 80)),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name; an unknown name lists the known ones."""
    if name not in PRESETS:
        raise unknown("degradation preset", name, list(PRESETS))
    return PRESETS[name]
