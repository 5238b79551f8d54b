"""Tiles with overlap are the whole picture; weights are the chosen ones, or the fetch command is named."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from bfr_models.errors import BfrError, UsageError
from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet
from bfr_models.upscalers import realesrgan
from bfr_models.upscalers.choice import BackgroundChoice, choose_background, stem_of
from bfr_models.upscalers.realesrgan import RealESRGAN, enlarge_by_tiles
from bfr_models.weights.tensors import parameters_of, save_weights


def small(factor: Literal[2, 4]) -> RRDBNet:
    """One block: no pixel of its output depends on any that is more than 22 px (x2: 40 px) away."""
    torch.manual_seed(factor)
    return RRDBNet(RRDBNetConfig(factor, channels=8, growth=4, blocks=1)).eval()


@pytest.mark.parametrize(("factor", "reach"), [(2, 40), (4, 22)])
def test_tiles_that_see_far_enough_are_the_whole_picture(factor: Literal[2, 4], reach: int) -> None:
    network = small(factor)
    image = np.random.default_rng(0).integers(0, 256, (101, 87, 3), np.uint8)
    tiles: list[int] = []
    whole = enlarge_by_tiles(network, image, tile=128)
    found = enlarge_by_tiles(network, image, on_tile=lambda: tiles.append(1), tile=32, overlap=reach)
    assert found.shape == whole.shape == (factor * 101, factor * 87, 3) and len(tiles) == 4 * 3
    assert np.abs(found.astype(int) - whole).max() <= 1  # sums in another order
    assert whole.std() > 3


@pytest.mark.parametrize("factor", [2, 4])
def test_at_the_default_overlap_tiles_differ_by_a_level_at_most(factor: Literal[2, 4]) -> None:
    network = small(factor)
    image = np.random.default_rng(0).integers(0, 256, (101, 87, 3), np.uint8)
    whole = enlarge_by_tiles(network, image, tile=128)
    found = enlarge_by_tiles(network, image, tile=32)
    assert np.abs(found.astype(int) - whole).max() <= 1


def test_an_error_between_tiles_ends_the_work() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        enlarge_by_tiles(small(4), np.zeros((8, 8, 3), np.uint8), on_tile=stop)


def test_the_weights_are_the_chosen_ones_or_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    assert choose_background("lanczos", 4) is None
    with pytest.raises(UsageError, match=r"`bfr weights fetch realesrgan/x2plus`"):
        choose_background("realesrgan", 2)
    with pytest.raises(UsageError, match=r"`bfr weights fetch realesrgan/x4plus realesrgan/x2plus`"):
        choose_background("realesrgan", "auto")
    monkeypatch.setattr(realesrgan, "RRDBNetConfig", lambda factor: RRDBNetConfig(factor, 8, 4, 1))
    sha256 = save_weights(parameters_of(small(2)), {}, tmp_path / f"{stem_of(2)}.safetensors")
    choice = choose_background("realesrgan", 2)
    assert choice == BackgroundChoice({2: sha256})
    image = np.full((9, 7, 3), 120, np.uint8)
    enlarger = RealESRGAN(choice, "cpu")
    assert enlarger.enlarge(image, 2).shape == (18, 14, 3) and enlarger.enlarge(image, 1) is image
    with pytest.raises(BfrError, match="every machine needs the same file"):
        RealESRGAN(BackgroundChoice({2: "0" * 64}), "cpu")
