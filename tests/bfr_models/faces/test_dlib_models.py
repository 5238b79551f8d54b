"""dlib on two real portraits: where faces are found, and whose they are."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import cv2
import numpy as np
import pytest

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import UsageError
from bfr_models.faces import dlib_files, dlib_models
from bfr_models.faces.align import align, transform_points
from bfr_models.faces.dlib_models import CHIP_TEMPLATE, DlibDetector, DlibLandmarks, DlibRecogniser
from bfr_models.faces.dlib_process import CHIP_SIDE
from bfr_models.faces.template import DLIB_5, FFHQ_5, at_size
from bfr_models.faces.types import DetectedFace, Detector, Points, Recogniser
from bfr_models.metrics.identity import cosine
from bfr_models.pixels import Uint8Image


def width(face: DetectedFace) -> float:
    return face.box[2] - face.box[0]


def farthest(found: Points, expected: Points) -> float:
    return float(np.hypot(*(found - expected).T).max())


def resized(image: Uint8Image, scale: float) -> Uint8Image:
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    return np.asarray(out, dtype=np.uint8)


def test_the_models_fulfil_the_protocols(detector: DlibDetector, recogniser: DlibRecogniser) -> None:
    faces: tuple[Detector, Recogniser] = (detector, recogniser)
    assert faces[0].template.shape == (5, 2)
    assert len(faces[1].sha256) == 64


def test_aligned_portraits_have_their_landmarks_on_the_template(
    hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector
) -> None:
    for photo in (hopper, collins):
        crop, _ = align(photo, detector.detect(photo)[0].landmarks, detector.template, 512)
        assert farthest(detector.detect(crop)[0].landmarks, DLIB_5) < 8


def test_pupils_marked_by_hand_come_to_the_eyes_of_ffhq(
    hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector
) -> None:
    pupils = np.array([[(221, 190.5), (304.5, 187)], [(203, 100.8), (246.3, 103)]])
    for photo, eyes in zip((hopper, collins), pupils, strict=True):
        _, matrix = align(photo, detector.detect(photo)[0].landmarks, detector.template, 512)
        assert farthest(transform_points(eyes, matrix), FFHQ_5[:2]) < 8


def test_padding_moves_the_face(hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector) -> None:
    for photo in (hopper, collins):
        face = detector.detect(photo)[0]
        padded = np.pad(photo, ((120, 30), (75, 60), (0, 0)), mode="edge")
        moved = detector.detect(padded)[0].landmarks - (75, 120)
        assert farthest(moved, face.landmarks) < 0.03 * width(face)


@pytest.mark.parametrize("scale", [0.6, 2.0, 5.0])
def test_coordinates_follow_the_photo_scale(
    hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector, scale: float
) -> None:
    for photo in (hopper, collins):
        face = detector.detect(photo)[0]
        again = detector.detect(resized(photo, scale))[0]
        assert farthest((again.landmarks + 0.5) / scale - 0.5, face.landmarks) < 0.03 * width(face)
        assert width(again) / scale == pytest.approx(width(face), rel=0.2)


def test_the_larger_face_comes_first(hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector) -> None:
    photo = np.pad(hopper, ((0, 0), (0, 512), (0, 0)), mode="edge")
    photo[:512, 512:] = collins
    first, second = detector.detect(photo)[:2]
    assert first.box[0] < 512 < second.box[0]
    assert width(first) > width(second)


def test_the_detector_sees_a_bounded_picture(collins: Uint8Image) -> None:
    pytest.importorskip("dlib")
    small = DlibDetector(max_pixels=20_000)
    assert small.detect(collins) == []  # at 141 px her face is under 80 px
    assert len(small.detect(collins[60:200, 150:290])) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 16, 3), (1, 9000, 3), (300, 200, 3)])
def test_no_face_gives_an_empty_list(detector: DlibDetector, shape: tuple[int, int, int]) -> None:
    assert detector.detect(np.full(shape, 127, dtype=np.uint8)) == []


def test_a_second_look_finds_more_of_worn_faces_and_in_their_place(hopper: Uint8Image, detector: DlibDetector) -> None:
    photo = resized(hopper, 0.5)
    (true,) = detector.detect(photo)
    at_first = in_the_end = 0
    for seed in range(16):
        worn = degrade(photo, get_preset("gfpgan"), seed)
        found = detector.detect(worn)
        at_first += bool(found)
        found = found or detector.look_again([worn])[0]
        in_the_end += bool(found)
        for face in found:
            assert np.abs(np.subtract(face.box, true.box)).max() < 0.3 * width(true)
    assert in_the_end >= at_first + 3


def test_a_second_look_takes_no_badge_for_a_face(collins: Uint8Image, detector: DlibDetector) -> None:
    """It sees one below hers where nobody checks."""
    photo = resized(collins, 0.5)
    for seed in (8, 12):
        worn = degrade(photo, get_preset("gfpgan"), seed)
        assert detector.detect(worn) == [] and detector.look_again([worn]) == [[]]


def test_threads_share_one_detector(hopper: Uint8Image, collins: Uint8Image, detector: DlibDetector) -> None:
    photos = [hopper, collins] * 2
    alone = [detector.detect(photo)[0].landmarks for photo in photos[:2]] * 2
    with ThreadPoolExecutor(2) as pool:
        together = [faces[0].landmarks for faces in pool.map(detector.detect, photos)]
    np.testing.assert_array_equal(together, alone)


def test_a_blurred_face_is_closer_than_another_person(
    aligned_hopper: Uint8Image, aligned_collins: Uint8Image, recogniser: DlibRecogniser
) -> None:
    blurred = np.asarray(cv2.GaussianBlur(aligned_hopper, (0, 0), 2), dtype=np.uint8)
    vectors = recogniser.embed([aligned_hopper, blurred, aligned_collins])
    same, other = cosine(vectors[[0, 0]], vectors[[1, 2]])
    assert same > 0.95
    assert other < same - 0.1


@pytest.mark.parametrize("size", [96, 128, 512])
def test_the_size_of_the_crop_does_not_change_the_identity(
    aligned_hopper: Uint8Image, aligned_collins: Uint8Image, recogniser: DlibRecogniser, size: int
) -> None:
    for face in (aligned_hopper, aligned_collins):
        vectors = recogniser.embed([face, resized(face, size / 256)])
        assert cosine(vectors[:1], vectors[1:])[0] > 0.99


def test_vectors_do_not_depend_on_the_batch(
    aligned_hopper: Uint8Image, aligned_collins: Uint8Image, recogniser: DlibRecogniser
) -> None:
    faces = [aligned_hopper, aligned_collins, aligned_hopper[:, ::-1]]
    vectors = recogniser.embed(faces)
    np.testing.assert_array_equal(vectors, np.concatenate([recogniser.embed([face]) for face in faces]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.dtype == np.float32


def test_a_process_that_is_killed_costs_one_call(aligned_hopper: Uint8Image) -> None:
    recogniser = DlibRecogniser()
    expected = recogniser.embed([aligned_hopper])
    recogniser._processes._processes[0].kill()
    with pytest.raises(ChildProcessError, match="ended with -9"):
        recogniser.embed([aligned_hopper])
    np.testing.assert_array_equal(recogniser.embed([aligned_hopper]), expected)


def test_no_faces_give_no_vectors(recogniser: DlibRecogniser) -> None:
    assert recogniser.embed([]).shape == (0, 128)


def test_a_face_that_is_not_square_is_refused(recogniser: DlibRecogniser) -> None:
    with pytest.raises(ValueError, match="200 x 100"):
        recogniser.embed([np.zeros((100, 200, 3), dtype=np.uint8)])


def test_the_chip_is_the_one_that_dlib_cuts(
    aligned_hopper: Uint8Image, aligned_collins: Uint8Image, recogniser: DlibRecogniser
) -> None:
    """dlib takes whole-pixel landmarks, so the face is brought to a size where rounding is small."""
    dlib = import_module("dlib")
    for face in (aligned_hopper, aligned_collins):
        large = resized(face, 4)
        points = [dlib.point(round(x), round(y)) for x, y in at_size(DLIB_5, 1024).tolist()]
        found = dlib.full_object_detection(dlib.rectangle(0, 0, 1023, 1023), points)
        theirs = dlib.get_face_chip(large, found)
        ours, _ = align(large, at_size(DLIB_5, 1024), CHIP_TEMPLATE, CHIP_SIDE)
        assert np.abs(ours.astype(int) - theirs)[8:-8, 8:-8].mean() < 6
        vector = recogniser._processes.describe([theirs])
        assert cosine(recogniser.embed([large]).astype(np.float64), vector)[0] > 0.995


def test_sha256_is_that_of_the_file(recogniser: DlibRecogniser) -> None:
    content = dlib_files.dlib_file(dlib_files.RECOGNISER_FILE).read_bytes()
    assert recogniser.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("lookup", ["import_module", "find_spec"])
def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, lookup: str) -> None:
    def absent(name: str) -> None:
        if lookup == "import_module":
            raise ModuleNotFoundError(name)

    pytest.importorskip("dlib")
    module = {"import_module": dlib_models, "find_spec": dlib_files}[lookup]
    monkeypatch.setattr(module, lookup, absent)
    with pytest.raises(UsageError, match="offline"):
        DlibRecogniser()


@pytest.mark.parametrize("shift", [-12, 0, 12])
def test_landmarks_of_an_aligned_face_follow_the_face(aligned_hopper: Uint8Image, shift: int) -> None:
    landmarks, detector = DlibLandmarks(), DlibDetector()
    moved = np.roll(aligned_hopper, shift, axis=1)
    found = landmarks.of_aligned(moved)
    (face,) = detector.detect(moved)[:1]
    side = aligned_hopper.shape[0]
    # in another box the predictor answers a little differently
    assert farthest(found, face.landmarks) < 0.02 * side
    assert farthest(found, at_size(DLIB_5, side) + np.array([shift, 0])) < 0.06 * side
