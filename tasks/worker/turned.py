"""Faces of scans that lie on their side or on their head, where nothing in the file says so.

A face is aligned by its landmarks, whichever way up it is: so a turned photo is restored in place once they are known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bfr_models.errors import RowError
from bfr_models.faces.align import scaled
from bfr_models.faces.types import DetectedFace, Detector, Points
from bfr_models.pixels import Uint8Image
from tasks.worker.batches import call_or_bisect

LOOK = 384
"""px of the longer side at which a photo is looked at in the three other positions: enough for a face of a tenth."""


def turned_faces(detector: Detector, photo: Uint8Image) -> tuple[list[DetectedFace], int]:
    """The faces of a photo in which none is upright, largest and surest first, in the photo's own pixels; and by how
    many degrees to the right they are turned: 0 if there are none."""
    small = scaled(photo, min(1.0, LOOK / max(photo.shape[:2])))
    looks = [np.ascontiguousarray(np.rot90(small, turns)) for turns in (1, 2, 3)]
    found = call_or_bisect(detector.detect_all, looks, "detector_failed")
    seen = [0.0 if isinstance(faces, RowError) else sum(face.prominence for face in faces) for faces in found]
    if max(seen) <= 0:
        return [], 0
    turns = 1 + int(np.argmax(seen))
    (faces,) = call_or_bisect(detector.detect_all, [np.ascontiguousarray(np.rot90(photo, turns))], "detector_failed")
    if isinstance(faces, RowError) or not faces:
        return [], 0
    return [_turned_back(face, turns, photo.shape[0], photo.shape[1]) for face in faces], 90 * turns


def _turned_back(face: DetectedFace, turns: int, height: int, width: int) -> DetectedFace:
    """A face in a photo of (height, width) that was found in `np.rot90(photo, turns)`."""
    x0, y0, x1, y1 = face.box
    corners = _back(np.array([(x0, y0), (x1, y1)]), turns, height, width)
    low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    landmarks = _back(face.landmarks, turns, height, width)
    return replace(face, box=(low[0], low[1], high[0], high[1]), landmarks=landmarks)


def _back(points: Points, turns: int, height: int, width: int) -> Points:
    x, y = points[:, 0], points[:, 1]
    if turns == 1:
        x, y = width - 1 - y, x
    elif turns == 2:
        x, y = width - 1 - x, height - 1 - y
    else:
        x, y = y, height - 1 - x
    return np.stack([x, y], axis=1)
