"""Faces on their side or on their head are found, and in the photo's own pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bfr_models.faces.types import DetectedFace
from bfr_models.pixels import Uint8Image
from tasks.worker.turned import turned_faces

HEIGHT, WIDTH = 300, 200
FACE = np.array([(50.0, 60.0), (90.0, 60.0), (70.0, 80.0), (55.0, 100.0), (85.0, 100.0)])


class Marks:
    """Finds a face where a photo has five marks, if the first two (the eyes) are above the others."""

    template = FACE

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        self.sizes.append(max(image.shape[:2]))
        points = [np.argwhere(image[..., 0] == 10 * (number + 1))[:, ::-1] for number in range(5)]
        if not all(map(len, points)):
            return []
        marks = np.array([point.mean(axis=0) for point in points])
        if marks[:2, 1].max() >= marks[2:, 1].min():
            return []
        (x0, y0), (x1, y1) = marks.min(axis=0), marks.max(axis=0)
        return [DetectedFace((x0, y0, x1, y1), marks, 1.0)]

    def detect_all(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        return [self.detect(image) for image in images]

    def look_again(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        return [[] for _ in images]


def photo() -> Uint8Image:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, (x, y) in enumerate(FACE.astype(int)):
        image[y, x] = 10 * (number + 1)
    return image


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_landmarks_and_boxes_are_those_of_the_photo_itself(turns: int) -> None:
    turned = np.ascontiguousarray(np.rot90(photo(), -turns))  # the scan lies turned to the right
    assert Marks().detect(turned) == []
    faces, degrees = turned_faces(Marks(), turned)
    assert degrees == 90 * turns
    (found,) = faces
    for number, (x, y) in enumerate(found.landmarks.astype(int)):
        assert turned[y, x, 0] == 10 * (number + 1)
    x0, y0, x1, y1 = found.box
    assert [x0, y0] == found.landmarks.min(axis=0).tolist() and [x1, y1] == found.landmarks.max(axis=0).tolist()


def test_a_large_photo_without_faces_is_looked_at_small() -> None:
    detector = Marks()
    assert turned_faces(detector, np.zeros((3000, 2000, 3), np.uint8)) == ([], 0)
    assert detector.sizes == [384] * 3


def test_a_real_portrait_is_found_in_every_position() -> None:
    dlib_models = pytest.importorskip("bfr_models.faces.dlib_models")
    pytest.importorskip("dlib")
    data = pytest.importorskip("skimage.data")
    detector = dlib_models.DlibDetector()
    upright = np.ascontiguousarray(data.astronaut()[:300, 80:380])
    (face,) = detector.detect(upright)
    for turns in (1, 2, 3):
        faces, degrees = turned_faces(detector, np.ascontiguousarray(np.rot90(upright, -turns)))
        assert degrees == 90 * turns and len(faces) == 1
        side = face.box[2] - face.box[0]
        assert abs((faces[0].box[2] - faces[0].box[0]) - side) < 0.1 * side
