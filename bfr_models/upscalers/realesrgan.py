"""Enlarges photos with Real-ESRGAN's generator, tile by tile: memory is that of one tile and of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.errors import BfrError
from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet
from bfr_models.pixels import Uint8Image
from bfr_models.upscalers.choice import BackgroundChoice, stem_of
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights

TILE = 192  # px of the input, even
OVERLAP = 24  # px of its surroundings that a tile sees on each side, even


class RealESRGAN:
    """The chosen networks on a device. Calls `on_tile` before each tile; what it raises ends the work."""

    def __init__(self, choice: BackgroundChoice, device: str, on_tile: Callable[[], None] = lambda: None) -> None:
        self._device, self._on_tile = device, on_tile
        self._networks: dict[int, RRDBNet] = {
            factor: _load(RRDBNetConfig(factor=factor), stem_of(factor), sha256).to(device)
            for factor, sha256 in choice.networks.items()
        }

    def enlarge(self, image: Uint8Image, factor: int) -> Uint8Image:
        """(H, W, 3) -> `factor` times the height and the width; the image itself for 1."""
        return image if factor == 1 else enlarge_by_tiles(self._networks[factor], image, self._device, self._on_tile)


def _load(config: RRDBNetConfig, stem: str, sha256: str) -> RRDBNet:
    network = RRDBNet(config)
    found = load_weights(network, require_weight(stem))
    if found != sha256:
        raise BfrError(f"{stem}: expected sha256 {sha256}, found {found}; every machine needs the same file")
    return network.requires_grad_(False).eval()


@torch.inference_mode()
def enlarge_by_tiles(
    network: RRDBNet,
    image: Uint8Image,
    device: str = "cpu",
    on_tile: Callable[[], None] = lambda: None,
    tile: int = TILE,
    overlap: int = OVERLAP,
) -> Uint8Image:
    """As the network enlarges the whole image, but for what lies more than `overlap` px beyond a tile: the published
    networks hardly look further."""
    height, width = image.shape[:2]
    factor = network.factor
    enlarged = np.empty((factor * height, factor * width, 3), np.uint8)
    for rows in _cuts(height, tile):
        for columns in _cuts(width, tile):
            on_tile()
            seen_rows, seen_columns = (
                _with_surroundings(rows, height, overlap),
                _with_surroundings(columns, width, overlap),
            )
            result = _run(network, image[seen_rows, seen_columns], device)
            top, left = factor * (rows.start - seen_rows.start), factor * (columns.start - seen_columns.start)
            place = tuple(slice(factor * cut.start, factor * cut.stop) for cut in (rows, columns))
            shape = enlarged[place].shape
            enlarged[place] = result[top : top + shape[0], left : left + shape[1]]
    return enlarged


def _cuts(length: int, tile: int) -> Iterator[slice]:
    return (slice(first, min(first + tile, length)) for first in range(0, length, tile))


def _with_surroundings(cut: slice, length: int, overlap: int) -> slice:
    return slice(max(0, cut.start - overlap), min(length, cut.stop + overlap))


def _run(network: RRDBNet, part: Uint8Image, device: str) -> Uint8Image:
    levels = torch.from_numpy(np.ascontiguousarray(part)).to(device).movedim(-1, 0)[None].float() / 255
    result: Tensor = network(_even(levels, network.unshuffle))[0]
    return (result.clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(0, -1).numpy()


def _even(image: Tensor, step: int) -> Tensor:
    """Continued at the lower and the right edge up to a multiple of `step`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % step, 0, -height % step), mode="replicate")
