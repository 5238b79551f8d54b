"""Two real photos that installed packages ship, and the faces in them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bfr_models.pixels import Uint8Image
from tasks.make_demo_faces import PORTRAITS


@cache
def photo(number: int, longer_side: int = 400) -> Uint8Image:
    """A photo with one face, (H, W, 3)."""
    _, package, file = PORTRAITS[number]
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations
    pixels = np.asarray(Image.open(Path(found.submodule_search_locations[0]) / file).convert("RGB"))
    scale = longer_side / max(pixels.shape)
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


@cache
def aligned(number: int, side: int = 128) -> Uint8Image:
    """Its face, aligned."""
    from bfr_models.faces.align import align
    from bfr_models.faces.dlib_models import DlibDetector

    pixels = photo(number, 512)
    (found, *_) = DlibDetector().detect(pixels)
    return align(pixels, found.landmarks, DlibDetector.template, side)[0]
