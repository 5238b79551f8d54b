"""A small face is degraded as it would have been at 512 px, and then shrunk."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from bfr_models.degradation.degrade import Draw, apply, degrade
from bfr_models.degradation.kernels import gaussian_kernel
from bfr_models.degradation.presets import PRESETS, get_preset
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from tests.support import portrait

SIDE = 128
PAPERS = [name for name, preset in PRESETS.items() if preset.scales_downsample and not preset.aged]
EXTREMES = [name for name, preset in PRESETS.items() if not preset.scales_downsample]


def shrunk(face: Uint8Image) -> Uint8Image:
    return to_uint8(resize(to_tensor(face)[None], SIDE)[0].clamp(-1, 1))


def rmse(a: Uint8Image, b: Uint8Image) -> float:
    return float(np.sqrt(((a.astype(float) - b) ** 2).mean()))


def spectrum(faces: list[Uint8Image]) -> NDArray[np.float64]:
    """Mean power of the grey pictures in five bands of frequency, over that of noise of one level, in decibels."""
    power = np.mean([np.abs(np.fft.fft2(face.mean(axis=-1))) ** 2 for face in faces], axis=0)
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(SIDE, 1 / SIDE)]))
    edges = [1, 8, 16, 32, 48, 64]
    return np.array(
        [
            10 * np.log10(1 + power[(frequency >= low) & (frequency < high)].mean() / SIDE**2)
            for low, high in pairwise(edges)
        ]
    )


@pytest.fixture(scope="module")
def large() -> list[Uint8Image]:
    return [portrait(number, 512) for number in range(6)]


@pytest.fixture(scope="module")
def small(large: list[Uint8Image]) -> list[Uint8Image]:
    return [shrunk(face) for face in large]


@pytest.fixture(scope="module")
def at_512(large: list[Uint8Image]) -> dict[str, list[Uint8Image]]:
    """Degraded at 512 px and then shrunk, by preset: each face by two seeds."""
    return {
        name: [
            shrunk(degrade(face, get_preset(name), 10 * i + seed)) for i, face in enumerate(large) for seed in (0, 1)
        ]
        for name in ("gfpgan", "difface")
    }


class TestSmallFaces:
    @pytest.mark.parametrize("name", ["gfpgan", "difface"])
    def test_one_seed_is_one_degradation_at_both_sizes(
        self, name: str, at_512: dict[str, list[Uint8Image]], small: list[Uint8Image]
    ) -> None:
        """What is left is aliasing and the JPEG's bits for detail that a small face no longer has."""
        here = [degrade(face, get_preset(name), 10 * i + seed) for i, face in enumerate(small) for seed in (0, 1)]
        apart = np.mean([rmse(a, b) for a, b in zip(here, at_512[name], strict=True)])
        damage = np.mean([rmse(a, small[i // 2]) for i, a in enumerate(at_512[name])])
        assert apart < 0.25 * damage

    @pytest.mark.parametrize("name", ["gfpgan", "difface"])
    def test_other_seeds_give_the_same_statistics(
        self, name: str, at_512: dict[str, list[Uint8Image]], small: list[Uint8Image]
    ) -> None:
        """Over draws of their own: error and spectrum. 60 draws of which each spreads by about 5 dB."""
        preset = get_preset(name)
        here = [degrade(face, preset, 1000 + 10 * i + seed) for i, face in enumerate(small) for seed in range(10)]
        there = at_512[name]
        errors = [
            np.sqrt(np.mean([rmse(a, small[i // (len(set_) // 6)]) ** 2 for i, a in enumerate(set_)]))
            for set_ in (here, there)
        ]
        assert abs(20 * np.log10(errors[0] / errors[1])) < 2
        assert np.abs(spectrum(here) - spectrum(there)).max() < 2

    @pytest.mark.parametrize(
        ("downsample", "noise", "quality"),
        [
            pytest.param(*both, marks=() if both[0] in factors else pytest.mark.long)
            for noise, factors in (((0.0, 95), (0.8, 2.0, 6.0)), ((15.0, 75), (1.5, 3.9, 4.0, 16.0)))
            for both in ((factor, *noise) for factor in (0.8, 1.5, 2.0, 3.9, 4.0, 6.0, 16.0))
        ],
    )
    def test_at_each_factor_error_and_spectrum_are_those_of_512_px(
        self, downsample: float, noise: float, quality: int, large: list[Uint8Image], small: list[Uint8Image]
    ) -> None:
        def by(size: int) -> Draw:
            scale = size / 512
            kernel = gaussian_kernel({512: 41, SIDE: 11}[size], 6 * scale, 6 * scale, 0.0)
            return Draw(kernel, downsample * scale, noise, quality, 1 / scale)

        there = [shrunk(apply(face, by(512), np.random.default_rng(i))) for i, face in enumerate(large[:3])]
        here = [apply(face, by(SIDE), np.random.default_rng(100 + i)) for i, face in enumerate(small[:3])]
        errors = [np.mean([rmse(a, b) for a, b in zip(set_, small[:3], strict=True)]) for set_ in (here, there)]
        assert errors[0] == pytest.approx(errors[1], rel=0.06)  # half a decibel
        assert np.abs(spectrum(here) - spectrum(there)).max() < 2

    @pytest.mark.parametrize("name", ["gfpgan", "difface"])
    def test_the_extremes_are_harsher(
        self, name: str, at_512: dict[str, list[Uint8Image]], small: list[Uint8Image]
    ) -> None:
        """As all degradations of small faces were once: of 128 px a quarter is left of what the papers leave."""
        preset = get_preset(f"{name}_extreme")
        extreme = [degrade(face, preset, 10 * i + seed) for i, face in enumerate(small) for seed in (0, 1)]
        damages = [np.mean([rmse(a, small[i // 2]) for i, a in enumerate(set_)]) for set_ in (extreme, at_512[name])]
        assert damages[0] > 1.3 * damages[1]

    def test_what_is_hardly_degraded_comes_back_as_it_was(self, small: list[Uint8Image]) -> None:
        """To 640 px and back, by a JPEG of quality 100."""
        mildest = Draw(gaussian_kernel(3, 0.01, 0.01, 0.0), 0.2, noise=0.0, quality=100, enlargement=4)
        grey = small[0][..., :1].repeat(3, axis=-1)
        assert rmse(apply(grey, mildest, np.random.default_rng(0)), grey) < 1

    def test_noise_is_averaged_away_as_it_shrinks(self) -> None:
        """Grey noise of 20 levels in a picture of 512 px, shrunk to 128: a quarter of it, and less for the filter."""
        grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
        noisy = Draw(gaussian_kernel(3, 0.01, 0.01, 0.0), 0.25, noise=20.0, quality=100, enlargement=4)
        assert 3 < rmse(apply(grey, noisy, np.random.default_rng(0)), grey) < 20 / 4 * 1.1


def test_a_face_of_512_px_is_degraded_as_it_is() -> None:
    face = portrait(0, 512)
    for name, extreme in (("gfpgan", "gfpgan_extreme"), ("difface", "difface_extreme")):
        np.testing.assert_array_equal(degrade(face, get_preset(name), 5), degrade(face, get_preset(extreme), 5))
