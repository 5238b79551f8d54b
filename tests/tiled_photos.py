"""Photos of portraits in tiles, and a detector that finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from bfr_models.faces.detectors import DetectorChoice
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.faces.types import DetectedFace
from bfr_models.pixels import Uint8Image
from tests import faulty_methods, support

TILE = faulty_methods.SIZE  # of the method too: a tile is a crop, pixel by pixel


class TileDetector:
    """Finds a face in every tile whose middle is not black; in a red one, with useless landmarks."""

    template = FFHQ_5

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        if image[0, 0, 0] == 255:
            raise RuntimeError("not this photo")
        return list(self._tiles(image))

    def detect_all(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        return [self.detect(image) for image in images]

    def look_again(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        return [[] for _ in images]

    def _tiles(self, image: Uint8Image) -> Iterator[DetectedFace]:
        for y in range(0, image.shape[0] - TILE + 1, TILE):
            for x in range(0, image.shape[1] - TILE + 1, TILE):
                middle = image[y + TILE // 2, x + TILE // 2]
                points = at_size(FFHQ_5, TILE) + np.array([x, y])
                if middle[0] > 0 and middle[1:].any():
                    yield DetectedFace((x, y, x + TILE, y + TILE), points, 0.9)
                elif middle[0] > 0:
                    yield DetectedFace((x, y, x + TILE, y + TILE), np.full((5, 2), 7.0), 0.9)


def photo(*numbers: int | None, columns: int = 3, border: int = 20) -> Uint8Image:
    """Portraits in rows of tiles (None leaves one black) on black, with some grey below and beside them."""
    rows = -(-len(numbers) // columns)
    canvas = np.full((rows * TILE + border, columns * TILE + border, 3), 60, np.uint8)
    canvas[: rows * TILE, : columns * TILE] = 0
    for place, number in enumerate(numbers):
        y, x = TILE * (place // columns), TILE * (place % columns)
        if number is not None:
            canvas[y : y + TILE, x : x + TILE] = support.portrait(number, TILE)
    return canvas


def find_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process find faces with a `TileDetector`."""
    monkeypatch.setattr("tasks.worker.restore_rows.load_detector", lambda *_: TileDetector())
    monkeypatch.setattr("tasks.config.resolve.choose_detector", lambda *_: DetectorChoice("tiles"))
