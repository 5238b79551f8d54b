"""Two portraits that come inside packages, and the dlib models; tests skip where one is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bfr_models.faces.align import align
from bfr_models.faces.dlib_models import DlibDetector, DlibRecogniser
from bfr_models.pixels import Uint8Image


@pytest.fixture(scope="session")
def hopper() -> Uint8Image:
    """Grace Hopper, 512 x 600: comes with matplotlib."""
    matplotlib = pytest.importorskip("matplotlib")
    return _read(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))


@pytest.fixture(scope="session")
def collins() -> Uint8Image:
    """Eileen Collins, 512 x 512: comes with scikit-image."""
    skimage = pytest.importorskip("skimage")
    return _read(Path(skimage.__file__).parent / "data" / "astronaut.png")


@pytest.fixture(scope="session")
def detector() -> DlibDetector:
    pytest.importorskip("dlib")
    return DlibDetector()


@pytest.fixture(scope="session")
def recogniser() -> DlibRecogniser:
    pytest.importorskip("dlib")
    return DlibRecogniser()


@pytest.fixture(scope="session")
def aligned_hopper(hopper: Uint8Image, detector: DlibDetector) -> Uint8Image:
    return _aligned(hopper, detector)


@pytest.fixture(scope="session")
def aligned_collins(collins: Uint8Image, detector: DlibDetector) -> Uint8Image:
    return _aligned(collins, detector)


def _read(path: Path) -> Uint8Image:
    return np.array(Image.open(path).convert("RGB"))


def _aligned(photo: Uint8Image, detector: DlibDetector) -> Uint8Image:
    """The face at 256 px."""
    return align(photo, detector.detect(photo)[0].landmarks, detector.template, 256)[0]
