"""PSNR and SSIM are scikit-image's with the literature's settings, MS-SSIM is pytorch-msssim's; sharpness is exact on
a ramp."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfr_models.metrics.fidelity import ms_ssim, psnr, sharpness, ssim
from bfr_models.pixels import Uint8Image

reference = pytest.importorskip("skimage.metrics")


def picture(seed: int, height: int = 32, width: int = 40) -> Uint8Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def near(image: Uint8Image, seed: int, spread: int) -> Uint8Image:
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


@given(st.integers(0, 2**32), st.integers(1, 255))
def test_psnr_is_that_of_scikit_image(seed: int, spread: int) -> None:
    gt = picture(seed)
    image = near(gt, seed + 1, spread)
    assert psnr(image, gt) == pytest.approx(reference.peak_signal_noise_ratio(gt, image, data_range=255), abs=1e-9)


@pytest.mark.parametrize("spread", [1, 20, 255])
@pytest.mark.parametrize(("height", "width"), [(11, 11), (11, 40), (64, 48)])
def test_ssim_is_that_of_scikit_image(height: int, width: int, spread: int) -> None:
    gt = picture(1, height, width)
    image = near(gt, 2, spread)
    expected = reference.structural_similarity(
        gt, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    assert ssim(image, gt) == pytest.approx(expected, abs=1e-7)


def test_equal_pictures_are_infinitely_good() -> None:
    assert psnr(picture(0), picture(0)) == math.inf
    assert ssim(picture(0), picture(0)) == pytest.approx(1, abs=1e-12)


def test_psnr_of_one_level_everywhere_is_known() -> None:
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    assert psnr(grey, grey + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert psnr(grey + np.uint8(1), grey) == psnr(grey, grey + np.uint8(1))


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim])
def test_pictures_of_two_shapes_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(32, 40, 3\) and \(32, 1, 3\)"):
        metric(picture(0), picture(0)[:, :1])  # type: ignore[operator]


def test_ssim_needs_one_whole_window() -> None:
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(picture(0, 10, 40), picture(1, 10, 40))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, 0), (0, 5), (3, 4)])
def test_sharpness_of_a_ramp_is_its_slope(down: int, right: int) -> None:
    y, x = np.mgrid[:20, :30]
    ramp = np.repeat((down * y + right * x)[..., None], 3, axis=-1).astype(np.uint8)
    assert sharpness(ramp) == pytest.approx(math.hypot(down, right))


def test_sharpness_weighs_colours_as_the_eye_does() -> None:
    ramp = np.zeros((20, 30, 3), dtype=np.uint8)
    ramp[..., 1] = np.arange(30)
    assert sharpness(ramp) == pytest.approx(0.587)


@pytest.mark.parametrize("spread", [1, 20, 100])
@pytest.mark.parametrize(("height", "width"), [(176, 176), (192, 256)])
def test_ms_ssim_is_that_of_pytorch_msssim(height: int, width: int, spread: int) -> None:
    """With a window in float64, its own being float32. At sides that are no multiple of 16 it pads with 0."""
    library = pytest.importorskip("pytorch_msssim")
    window = torch.exp(-0.5 * ((torch.arange(11, dtype=torch.float64) - 5) / 1.5) ** 2)
    window = (window / window.sum()).repeat(3, 1, 1, 1)
    gt = picture(1, height, width)
    image = near(gt, 2, spread)
    pair = (torch.from_numpy(i.transpose(2, 0, 1).astype(np.float64))[None] for i in (image, gt))
    assert ms_ssim(image, gt) == pytest.approx(float(library.ms_ssim(*pair, win=window)), abs=1e-10)


def test_ms_ssim_of_equal_opposite_and_small_pictures() -> None:
    gt = picture(1, 161, 163)
    assert ms_ssim(gt, gt) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(gt, 255 - gt) == 0  # structure below 0 counts as 0
    with pytest.raises(ValueError, match=r"at least 161 px, got \(160, 163\)"):
        ms_ssim(gt[:160], gt[:160])
