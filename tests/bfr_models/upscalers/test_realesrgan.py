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

IMAGE = np.random.default_rng(0).integers(0, 256, (61, 53, 3), np.uint8)


def small(factor: Literal[2, 4]) -> RRDBNet:
    """One block: no pixel of its output depends on any that is more than 22 px (x2: 40 px) away. Its levels are all
    over the range, as a photo's are."""
    torch.manual_seed(factor)
    network = RRDBNet(RRDBNetConfig(factor, channels=8, growth=4, blocks=1)).eval().requires_grad_(False)
    for layer in (network.conv_first, network.conv_body, network.conv_up1, network.conv_up2, network.conv_hr):
        layer.weight *= 2
    colours = network(torch.rand(1, 3, 32, 32)).std() / 0.25
    network.conv_last.weight /= colours
    network.conv_last.bias += 0.5 - network(torch.rand(1, 3, 32, 32)).mean()
    return network


@pytest.mark.parametrize(("factor", "reach"), [(2, 40), (4, 22)])
def test_tiles_that_see_far_enough_are_the_whole_picture(factor: Literal[2, 4], reach: int) -> None:
    network, tiles = small(factor), list[int]()
    whole = enlarge_by_tiles(network, IMAGE, tile=64)
    found = enlarge_by_tiles(network, IMAGE, on_tile=lambda: tiles.append(1), tile=16, overlap=reach)
    assert found.shape == whole.shape == (factor * 61, factor * 53, 3) and len(tiles) == 4 * 4
    assert whole.std() > 30
    assert np.abs(found.astype(int) - whole).max() <= 1  # sums in another order


def test_tiles_of_the_default_overlap_are_it_but_for_two_levels_in_a_few_places() -> None:
    """x2, whose blocks see twice as far as the overlap."""
    whole = enlarge_by_tiles(small(2), IMAGE, tile=64)
    difference = np.abs(enlarge_by_tiles(small(2), IMAGE, tile=16).astype(int) - whole)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.01


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
