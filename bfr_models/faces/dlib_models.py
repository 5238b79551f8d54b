"""Face models that need no download: dlib's HOG detector, five-point predictor and ResNet recogniser."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from math import sqrt
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import UsageError
from bfr_models.faces.align import align, scaled, transform_points, warp
from bfr_models.faces.dlib_files import INSTALL, LANDMARKS_FILE, RECOGNISER_FILE, dlib_file
from bfr_models.faces.dlib_process import CHIP_SIDE, DlibProcesses
from bfr_models.faces.template import ALIGNED_BOX, DLIB_5, TEMPLATE_SIDE, at_size
from bfr_models.faces.types import DetectedFace, Points
from bfr_models.pixels import Uint8Image
from bfr_models.weights.files import file_sha256

PATCH_SIDE = 512  # px; the patch around one face that the landmark predictor sees,
PATCH_BOX = 256  # and the side of the detector's box in the middle of it

# dlib's five points in such a chip, with the padding of 0.25 of its training (get_face_chip_details in
# dlib/image_transforms/interpolation.h), scaled to the template's side.
CHIP_TEMPLATE: Points = (TEMPLATE_SIDE / 1.5) * (
    0.25
    + np.array(
        [
            (0.8595674595992, 0.2134981538014),
            (0.6460604764104, 0.2289674387677),
            (0.1205750620789, 0.2137274526848),
            (0.3340850613712, 0.2290642403242),
            (0.4901123135679, 0.6277975316475),
        ]
    )
)


class DlibLandmarks:
    """The five-point predictor: corners of the eyes, base of the nose. Stateless: one serves several threads."""

    def __init__(self) -> None:
        self._dlib = _import_dlib()
        self._predictor = self._dlib.shape_predictor(str(dlib_file(LANDMARKS_FILE)))

    def in_box(self, image: Uint8Image, x0: float, y0: float, x1: float) -> Points:
        """(5, 2) in the image's pixels, of the face in the detector's square box from (x0, y0) to the column x1.

        dlib's points are whole pixels, so they are read in a patch where a face is large.
        """
        scale = PATCH_BOX / (x1 - x0)
        margin = (PATCH_SIDE - PATCH_BOX) // 2
        shift = margin - 0.5
        matrix = np.array([(scale, 0, shift - scale * x0), (0, scale, shift - scale * y0)])
        box = self._dlib.rectangle(margin, margin, margin + PATCH_BOX - 1, margin + PATCH_BOX - 1)
        shape = self._predictor(warp(image, matrix, PATCH_SIDE), box)
        points = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        return transform_points(points, np.asarray(cv2.invertAffineTransform(matrix), dtype=np.float64))

    def of_aligned(self, face: Uint8Image) -> Points:
        """(5, 2) in the pixels of a square face framed as FFHQ's. Its box is known, so nothing is detected."""
        scale = face.shape[1] / TEMPLATE_SIDE
        x0, y0, x1 = ((edge + 0.5) * scale - 0.5 for edge in ALIGNED_BOX)
        return self.in_box(face, x0, y0, x1)


class DlibDetector:
    """Frontal faces of 80 px and more, after scaling the photo to at most `max_pixels`.

    Small photos are enlarged, at most `max_upscale` times: the smallest face found is 80 / scale px.
    `threshold` moves the detector's own; higher means fewer false faces.

    One object serves several threads at once. The HOG detector keeps state while it runs with the
    interpreter's lock released (two threads in one crash), so each thread gets its own, in 0.2 s; the
    landmark predictor has no state.
    """

    template = DLIB_5

    def __init__(self, max_pixels: int = 4_000_000, max_upscale: float = 3.0, threshold: float = 0.0) -> None:
        self.max_pixels = max_pixels
        self.max_upscale = max_upscale
        self.threshold = threshold
        self._dlib = _import_dlib()
        self._landmarks = DlibLandmarks()
        self._thread = threading.local()

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        """The faces of an RGB photo, largest and surest first."""
        height, width = image.shape[:2]
        photo = scaled(image, min(self.max_upscale, sqrt(self.max_pixels / (height * width))))
        rectangles, scores, _ = self._hog().run(photo, 0, self.threshold)
        back = np.divide(image.shape[1::-1], photo.shape[1::-1])
        faces = []
        for rectangle, score in zip(rectangles, scores, strict=True):
            corners = [(rectangle.left(), rectangle.top()), (rectangle.right() + 1, rectangle.bottom() + 1)]
            x0, y0, x1, y1 = (back * corners - 0.5).flatten().tolist()  # a pixel's edge is 0.5 off its centre
            faces.append(DetectedFace((x0, y0, x1, y1), self._landmarks.in_box(image, x0, y0, x1), score))
        return sorted(faces, key=lambda face: face.prominence, reverse=True)

    def detect_all(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """Photo by photo: dlib has no batches."""
        return [self.detect(image) for image in images]

    def _hog(self) -> Any:
        if not hasattr(self._thread, "hog"):
            self._thread.hog = self._dlib.get_frontal_face_detector()
        return self._thread.hog


class DlibRecogniser:
    """The ResNet of dlib 19.3: 128 numbers per face, made unit length.

    Its vectors are not centred: the cosine of two different people is far above 0. It runs in processes of its own, so
    that no other thread of this one has to wait. One object may serve several threads.
    """

    name = "dlib_resnet_v1"

    def __init__(self) -> None:
        self._file = dlib_file(RECOGNISER_FILE)
        _import_dlib()
        self._processes = DlibProcesses(self._file)

    @cached_property
    def sha256(self) -> str:
        """The network file's, computed on first use."""
        return file_sha256(self._file)

    def embed(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        """Aligned square faces of any size -> (n, 128) float32 unit vectors. dlib's batches are no faster on a CPU."""
        vectors = self._processes.describe([_chip(face) for face in faces])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


def _chip(face: Uint8Image) -> Uint8Image:
    height, width = face.shape[:2]
    if height != width:
        raise ValueError(f"expected a square aligned face, got {width} x {height}")
    return align(face, at_size(DLIB_5, width), CHIP_TEMPLATE, CHIP_SIDE)[0]


def _import_dlib() -> ModuleType:
    try:
        return import_module("dlib")
    except ImportError as error:
        raise UsageError(f"expected dlib for the offline face models, found none; {INSTALL}") from error
