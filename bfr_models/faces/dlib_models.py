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
from bfr_models.faces.dlib_files import DETECTOR_FILE, INSTALL, LANDMARKS_FILE, RECOGNISER_FILE, dlib_file
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


AGAIN_PIXELS, AGAIN_THRESHOLD, AGAIN_MEDIAN = 1_000_000, -0.4, 5
"""How a photo without a face is looked at again. Of 40 faces with GFPGAN's degradations 27 are found at first and 35 in
the end, of DifFace's 10 and 15; of 300 portraits of an archive 282 and 295; of 24 pictures without a face 1 and 1."""
DOUBTS = 4
"""How many doubtful faces of a photo are checked."""
DOUBT_SIDE, DOUBT_MARGIN = 100, 0.5
"""px of the detector's box in what is checked, and what is around it as a share of that."""


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
        return self._found(image, scaled(image, self._scale(image, self.max_pixels)), self.threshold)

    def look_again(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """Photo by photo, where none was found: with a lower threshold, without the grain and the noise that hide the
        edges of a face, and at half the size, where its blur is less. What is found so is checked by another detector,
        dlib's convolutional one, which takes too long for whole photos."""
        return [self._look_again(image) for image in images]

    def _look_again(self, image: Uint8Image) -> list[DetectedFace]:
        scale, threshold = self._scale(image, AGAIN_PIXELS), self.threshold + AGAIN_THRESHOLD
        looks = cv2.medianBlur(scaled(image, scale), AGAIN_MEDIAN), scaled(image, scale / 2)
        doubtful = [face for look in looks for face in self._found(image, np.asarray(look, np.uint8), threshold)]
        doubtful.sort(key=lambda face: face.score, reverse=True)
        sure: list[DetectedFace] = []
        for face in doubtful[:DOUBTS]:
            if not any(_are_one(face, other) for other in sure) and self._confirms(image, face):
                sure.append(face)
        return sorted(sure, key=lambda face: face.area, reverse=True)

    def _confirms(self, image: Uint8Image, face: DetectedFace) -> bool:
        """Whether the convolutional detector sees a face of this size in the middle of its surroundings."""
        x0, y0, x1, _ = face.box
        scale, margin = DOUBT_SIDE / (x1 - x0), DOUBT_MARGIN * DOUBT_SIDE
        matrix = np.array([(scale, 0, margin - scale * x0), (0, scale, margin - scale * y0)])
        around = warp(image, matrix, round(DOUBT_SIDE + 2 * margin))
        middle = len(around) / 2
        for seen in self._convolutional()(around, 0):
            centre, side = seen.rect.center(), seen.rect.width()
            is_there = max(abs(centre.x - middle), abs(centre.y - middle)) < 0.4 * DOUBT_SIDE
            if is_there and 0.5 * DOUBT_SIDE < side < 1.8 * DOUBT_SIDE:
                return True
        return False

    def _scale(self, image: Uint8Image, max_pixels: int) -> float:
        height, width = image.shape[:2]
        return min(self.max_upscale, sqrt(max_pixels / (height * width)))

    def _found(self, image: Uint8Image, photo: Uint8Image, threshold: float) -> list[DetectedFace]:
        """What is seen in `photo`, which is `image` at another size, in the pixels of the latter."""
        rectangles, scores, _ = self._hog().run(photo, 0, threshold)
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

    def _convolutional(self) -> Any:
        if not hasattr(self._thread, "convolutional"):
            self._thread.convolutional = self._dlib.cnn_face_detection_model_v1(str(dlib_file(DETECTOR_FILE)))
        return self._thread.convolutional


def _are_one(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether their boxes have their middles within each other."""
    distance = np.abs(np.subtract(face.middle, other.middle)).max()
    return bool(distance**2 < min(face.area, other.area) / 4)


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
