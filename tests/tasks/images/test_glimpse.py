"""A look at a picture costs little, whatever the picture says of itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from tasks.images.glimpse import glimpse
from tests.newer_formats import newer
from tests.zoo import FLAT, tiff


def test_tiles_far_larger_than_their_image_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(FLAT, photometric="rgb", tile=(16, 32))
    assert glimpse(data, 35) is not None
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        place = opened.pages.first.tags["TileLength"].valueoffset
    decoded: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *_, **__: decoded.append(1))
    assert glimpse(data[:place] + b"\xff\xff\xff\0" + data[place + 4 :], 35) is None
    assert decoded == []  # room for a whole tile would have been made: 1.6 GB


def test_newer_formats_are_looked_at_too() -> None:
    for animal in [animal for animal in newer() if animal.name.endswith("rgb 8")]:
        seen = glimpse(animal.data, 35)
        assert seen is not None and seen.view is not None, animal.name
        assert (seen.width, seen.height, seen.view.shape) == (70, 45, (22, 35)), animal.name
        assert abs(float(seen.view.mean()) - float(np.asarray(Image.fromarray(FLAT).convert("L")).mean())) < 4
