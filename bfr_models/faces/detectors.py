"""The face detectors: dlib's (the extra `offline`), or RetinaFace with a weight file. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.dlib_files import dlib_is_here
from bfr_models.weights.files import file_sha256, find_weight, require_weight

if TYPE_CHECKING:  # a driver that only names the detector needs no torch
    from bfr_models.faces.types import Detector


@dataclass(frozen=True)
class DetectorChoice:
    """A face detector and its weight file, if it has one."""

    name: str
    weights: str | None = None  # the same path on every machine
    sha256: str | None = None


RETINAFACE = ("facexlib-retinaface-resnet50", "facexlib-retinaface-mobilenet")
"""Stems of its weight files, the better first."""


def choose_detector(name: str, weights: str | None) -> DetectorChoice:
    """The detector with its file and checksum. UsageError, which says what to do, if it is not installed."""
    if name == "dlib":
        if not dlib_is_here():
            raise UsageError(
                "expected dlib to find faces with, found none; pip install 'bfr-pipeline[offline]', or use another "
                "detector: --detector retinaface"
            )
        return DetectorChoice(name)
    path = Path(weights).expanduser().absolute() if weights else next(filter(None, map(find_weight, RETINAFACE)), None)
    path = path or require_weight(RETINAFACE[0])
    return DetectorChoice(name, str(path), file_sha256(path))


def load_detector(choice: DetectorChoice, device: str) -> Detector:
    """The detector on `device`. BfrError if its file is not the one that was chosen."""
    if choice.weights is None:
        from bfr_models.faces.dlib_models import DlibDetector

        return DlibDetector()
    from bfr_models.faces.retinaface import RetinaFaceDetector

    path = Path(choice.weights)
    if (found := file_sha256(path)) != choice.sha256:
        raise BfrError(f"{path}: expected sha256 {choice.sha256}, found {found}; every machine needs the same file")
    return RetinaFaceDetector(path, device)
