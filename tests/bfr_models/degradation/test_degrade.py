"""Degradations: the papers' ranges, one result per seed, and OpenCV's arithmetic."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfr_models.degradation import degrade as module
from bfr_models.degradation.degrade import Draw, apply, degrade, draw
from bfr_models.degradation.kernels import gaussian_kernel
from bfr_models.degradation.presets import GRIDS, PRESETS, Preset, get_preset, preset_of_row
from bfr_models.errors import UsageError
from bfr_models.pixels import Uint8Image

every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)


def face(size: int = 64) -> Uint8Image:
    """Coarse patches under fine noise."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(20, 235, (6, 6, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    return (coarse + rng.normal(0, 8, coarse.shape)).clip(0, 255).round().astype(np.uint8)


def drawn_sigmas(kernel: torch.Tensor) -> NDArray[np.float64]:
    """The standard deviations along the kernel's own axes, read off its pixels."""
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    weights = kernel.numpy()
    covariance = np.array([[(weights * a * b).sum() for a in (x, y)] for b in (x, y)])
    return np.sqrt(np.linalg.eigvalsh(covariance).clip(0))  # of a kernel of one pixel it may be a hair below 0


class TestDraw:
    @every_preset
    @pytest.mark.parametrize(("size", "width"), [(512, 41), (128, 11), (256, 21), (16, 3)])
    def test_kernels_scale_with_the_face(self, preset: Preset, size: int, width: int) -> None:
        assert draw(preset, size, np.random.default_rng(0)).kernel.shape == (width, width)

    @every_preset
    @given(size=st.sampled_from([512, 128]), seed=st.integers(0, 2**63))
    @settings(max_examples=50)
    def test_every_draw_is_in_the_papers_ranges(self, preset: Preset, size: int, seed: int) -> None:
        drawn = draw(preset, size, np.random.default_rng(seed))
        for value, (low, high) in [
            (drawn.downsample * 512 / size if preset.scales_downsample else drawn.downsample, preset.downsample),
            (drawn.noise, preset.noise),
            (drawn.quality, preset.quality),
        ]:
            assert low <= value <= high
        assert drawn_sigmas(drawn.kernel).max() <= preset.sigma[1] * size / 512  # cutting the kernel off narrows it

    @every_preset
    def test_draws_fill_the_ranges_from_end_to_end(self, preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of n uniform draws none falls into the last tenth with probability 0.9^n: 1e-23 for 500."""
        kernels: list[tuple[float, ...]] = []
        monkeypatch.setattr(module, "gaussian_kernel", lambda *arguments: kernels.append(arguments))
        rng = np.random.default_rng(0)
        draws = [draw(preset, 512, rng) for _ in range(500)]
        _, sigmas_x, sigmas_y, rotations = zip(*kernels, strict=True)
        for values, (low, high) in [
            (sigmas_x, preset.sigma),
            (sigmas_y, preset.sigma),
            (rotations, preset.rotation),
            ([d.downsample for d in draws], preset.downsample),
            ([d.noise for d in draws], preset.noise),
            ([d.quality for d in draws], preset.quality),
        ]:
            tenth = 0.1 * (high - low)
            assert low <= min(values) < low + tenth and high - tenth < max(values) <= high

    def test_both_ends_of_the_quality_are_drawn(self) -> None:
        preset, rng = replace(PRESETS["gfpgan"], quality=(60, 62)), np.random.default_rng(0)
        assert {draw(preset, 16, rng).quality for _ in range(100)} == {60, 61, 62}

    def test_blur_and_downsampling_are_drawn_in_pixels_of_the_face(self) -> None:
        """One seed at two sizes is one degradation, seen at two sizes: noise and JPEG, in the middle, are the same."""
        narrow = Preset("narrow", "-", (3, 5), (1, 8), (0, 20), (60, 100))
        large, small = (draw(narrow, size, np.random.default_rng(3)) for size in (512, 256))
        np.testing.assert_allclose(drawn_sigmas(large.kernel), 2 * drawn_sigmas(small.kernel), rtol=0.01)  # sampled
        assert (large.downsample, large.noise, large.quality) == (2 * small.downsample, small.noise, small.quality)
        as_it_is = replace(narrow, scales_downsample=False)
        assert draw(as_it_is, 256, np.random.default_rng(3)).downsample == large.downsample

    @pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
    def test_the_share_of_isotropic_kernels_is_the_presets(self, probability: float) -> None:
        preset = replace(PRESETS["gfpgan"], isotropic_probability=probability, sigma=(1, 10))
        rng = np.random.default_rng(0)
        kernels = [draw(preset, 512, rng).kernel for _ in range(400)]
        isotropic = np.mean([torch.allclose(k, k.mT) and torch.allclose(k, k.flip(0)) for k in kernels])
        assert abs(isotropic - probability) <= 5 * np.sqrt(probability * (1 - probability) / 400)

    def test_an_unknown_preset_lists_the_known(self) -> None:
        known = "gfpgan, difface, archive, gfpgan_extreme, difface_extreme, codeformer_large, resshift_test"
        expected = rf"unknown degradation preset 'gfp'; known: {known}; did you mean 'gfpgan'"
        with pytest.raises(UsageError, match=expected):
            get_preset("gfp")
        with pytest.raises(UsageError, match=f"'gfp'; known: {known}, difface_test; did you mean 'gfpgan'"):
            preset_of_row("gfp", 0)

    @every_preset
    def test_draws_are_uniform(self, preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kolmogorov and Smirnov's distance of 2,000 draws to the paper's distribution: 0.044 has probability 0.1 %."""
        kernels: list[tuple[float, ...]] = []
        monkeypatch.setattr(module, "gaussian_kernel", lambda *arguments: kernels.append(arguments))
        rng = np.random.default_rng(1)
        draws = [draw(preset, 512, rng) for _ in range(2000)]
        _, sigmas_x, sigmas_y, rotations = zip(*kernels, strict=True)
        low, high = preset.quality
        for values, (start, stop) in [
            (sigmas_x, preset.sigma),
            (sigmas_y, preset.sigma),
            (rotations, preset.rotation),
            ([d.downsample for d in draws], preset.downsample),
            ([d.noise for d in draws], preset.noise),
            ([d.quality + rng.random() for d in draws], (low, high + 1)),  # whole numbers, spread over their unit
        ]:
            share = np.sort((np.array(values) - start) / (stop - start))
            assert np.abs(share - (np.arange(2000) + 0.5) / 2000).max() < 0.044 - 0.5 / 2000

    def test_resshifts_test_set_has_the_ranges_of_its_script(self) -> None:
        preset = get_preset("resshift_test")
        assert (preset.downsample, preset.quality, preset.noise) == ((1, 32), (30, 70), (1, 20))
        assert (preset.sigma, preset.rotation, preset.isotropic_probability) == ((4, 16), (0, math.pi), 0)


class TestGrid:
    """DifFace's test set of 4,000 faces."""

    def test_cells_are_those_of_the_papers_loops(self) -> None:
        """In its script's order; sigma_y is all that the script draws from Python's generator."""
        random.seed(10000)
        expected = []
        for quality in (30, 40, 50, 60, 70):
            for downsample in (4, 8, 12, 16, 20, 24, 28, 32, 36, 40):
                for noise in (1, 5, 10, 15, 20):
                    for sigma_x in (4, 8, 12, 16):
                        for eighths in (0, 2, 4, 6):
                            sigma_y = random.choice([4, 8, 12, 16])
                            expected.append((quality, downsample, noise, sigma_x, sigma_y, eighths * math.pi / 8))
        cells = GRIDS["difface_test"].cells
        assert [points(cell) for cell in cells] == expected
        assert len(cells) == len({(*e[:4], e[5]) for e in expected}) == 4000

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("row", [0, 1234, 3999])
    def test_a_cell_is_drawn_as_it_is_whatever_the_seed(self, row: int, seed: int) -> None:
        cell = preset_of_row("difface_test", row)
        quality, downsample, noise, sigma_x, sigma_y, rotation = points(cell)
        for size, width in ((512, 41), (128, 11)):
            drawn = draw(cell, size, np.random.default_rng(seed))
            assert (drawn.quality, drawn.downsample, drawn.noise) == (quality, downsample * size / 512, noise)
            kernel = gaussian_kernel(width, sigma_x * size / 512, sigma_y * size / 512, rotation)
            assert torch.equal(drawn.kernel, kernel)

    def test_rows_after_the_last_cell_start_over(self) -> None:
        cells = GRIDS["difface_test"].cells
        for row in (0, 17, 3999):
            assert preset_of_row("difface_test", row + 4000) is preset_of_row("difface_test", row) is cells[row]
        assert preset_of_row("gfpgan", 17) is get_preset("gfpgan")


def points(cell: Preset) -> tuple[float, ...]:
    """What a cell's ranges have come down to."""
    ranges = (cell.quality, cell.downsample, cell.noise, cell.sigma, cell.sigma_y, cell.rotation)
    assert all(low == high for low, high in filter(None, ranges)) and cell.isotropic_probability == 0
    return tuple(low for low, _ in filter(None, ranges))


class TestDegrade:
    @every_preset
    def test_one_seed_gives_one_result_of_the_same_shape(self, preset: Preset) -> None:
        results = [degrade(face(), preset, seed) for seed in (1, 1, 2, 3)]
        assert {(r.shape, r.dtype) for r in results} == {((64, 64, 3), np.dtype(np.uint8))}
        np.testing.assert_array_equal(results[0], results[1])
        for one, other in itertools.combinations(results[1:], 2):
            assert (one != other).any()

    def test_the_face_is_not_changed_and_may_be_a_view(self) -> None:
        image = face()
        mirrored, before = image[:, ::-1], image.copy()
        np.testing.assert_array_equal(
            degrade(mirrored, PRESETS["gfpgan"], 0), degrade(np.ascontiguousarray(mirrored), PRESETS["gfpgan"], 0)
        )
        np.testing.assert_array_equal(image, before)

    def test_the_mildest_degradation_is_a_jpeg_of_quality_100(self) -> None:
        """Grey, so that JPEG's halved colour takes nothing: at quality 100 it rounds coefficients by half a level."""
        grey = face()[..., :1].repeat(3, axis=-1)
        mildest = Draw(gaussian_kernel(3, 0.01, 0.01, 0.0), downsample=1.0, noise=0.0, quality=100)
        result = apply(grey, mildest, np.random.default_rng(0))
        assert np.abs(result.astype(int) - grey).max() <= 2

    def test_an_extreme_downsampling_leaves_one_pixel(self) -> None:
        drawn = Draw(gaussian_kernel(3, 1.0, 1.0, 0.0), downsample=100.0, noise=0.0, quality=90)
        result = apply(face(), drawn, np.random.default_rng(0))
        assert (result == result[0, 0]).all()

    @pytest.mark.parametrize("quality", [30, 95])
    @pytest.mark.parametrize("downsample", [0.8, 1.0, 3.7, 8.0])
    def test_it_is_what_opencv_computes(self, downsample: float, quality: int) -> None:
        """The papers' code, in OpenCV. One level more or less going into the JPEG may come out as two."""
        drawn = Draw(gaussian_kernel(11, 1.5, 3.0, 0.7), downsample, noise=10.0, quality=quality)
        ours = apply(face(), drawn, np.random.default_rng(5))
        theirs = with_opencv(face(), drawn, np.random.default_rng(5), jpeg_of_opencv)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 2 and difference.mean() <= 0.01

    @pytest.mark.parametrize("downsample", [0.8, 1.0, 3.7, 8.0])
    def test_without_the_jpeg_it_is_within_a_rounding_of_opencv(
        self, downsample: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both in float32: a value near a half may round to either level, and one that does so in the small picture is
        one level in a patch of the large one. Rarely: a hundredth of a level on average is a lot."""
        monkeypatch.setattr(module, "_jpeg", lambda image, quality: image)
        drawn = Draw(gaussian_kernel(11, 1.5, 3.0, 0.7), downsample, noise=10.0, quality=95)
        ours = apply(face(), drawn, np.random.default_rng(5))
        theirs = with_opencv(face(), drawn, np.random.default_rng(5), lambda image, quality: image)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1 and difference.mean() <= 0.01


def with_opencv(
    image: Uint8Image, drawn: Draw, rng: np.random.Generator, jpeg: Callable[[Uint8Image, int], Uint8Image]
) -> Uint8Image:
    height, width = image.shape[:2]
    x = cv2.filter2D(image.astype(np.float32) / 255, -1, drawn.kernel.numpy(), borderType=cv2.BORDER_REFLECT_101)
    small = (int(width // drawn.downsample), int(height // drawn.downsample))
    x = cv2.resize(x, small, interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal((3, *small[::-1]), dtype=np.float32).transpose(1, 2, 0)
    noisy = (x + noise * drawn.noise / 255).clip(0, 1) * 255
    levels = jpeg(noisy.round().astype(np.uint8), drawn.quality)
    x = cv2.resize(levels.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return (x * 255).round().clip(0, 255).astype(np.uint8)


def jpeg_of_opencv(image: Uint8Image, quality: int) -> Uint8Image:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


THREADS = """
import hashlib, sys
import numpy as np, torch
from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
torch.set_num_threads(int(sys.argv[1]))
found = hashlib.sha256()
for side in (96, 128, 512):
    face = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for preset in ("gfpgan", "difface"):
        found.update(degrade(face, get_preset(preset), 7).tobytes())
print(found.hexdigest())
"""


def test_degraded_faces_are_the_same_with_any_number_of_threads() -> None:
    one, three = (
        subprocess.run([sys.executable, "-c", THREADS, str(n)], capture_output=True, text=True, check=True).stdout
        for n in (1, 3)
    )
    assert one and one == three
