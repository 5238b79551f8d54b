"""Which face detector looks at photos: dlib's, of the `offline` extra, or RetinaFace with weights of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.dlib_files import dlib_is_here
from bfr_models.weights.files import file_sha256, find_weight, require_weight
from tasks.config.restore import RestoreRun
from tasks.worker.job import DetectorChoice, PhotoSettings

if TYPE_CHECKING:  # a driver that only names the detector needs no torch
    from bfr_models.faces.types import Detector

RETINAFACE = ("facexlib-retinaface-resnet50", "facexlib-retinaface-mobilenet")
"""Stems of its weights, the better first."""


def photo_settings(run: RestoreRun) -> PhotoSettings | None:
    """How a run finds faces in photos; None where each picture is one face."""
    if run.input == "faces":
        return None
    detector = choose_detector(run.detector, run.detector_weights)
    return PhotoSettings(detector, run.min_face, run.max_faces, run.reject_no_face)


def choose_detector(name: str, weights: str | None) -> DetectorChoice:
    """The detector with its file and checksum. UsageError, which says what to do, when it is not here."""
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
    """The detector on `device`. BfrError when its file is not the one that was chosen."""
    if choice.weights is None:
        from bfr_models.faces.dlib_models import DlibDetector

        return DlibDetector()
    from bfr_models.faces.retinaface import RetinaFaceDetector

    path = Path(choice.weights)
    if (found := file_sha256(path)) != choice.sha256:
        raise BfrError(f"{path}: expected sha256 {choice.sha256}, found {found}; every machine needs the same file")
    return RetinaFaceDetector(path, device)
