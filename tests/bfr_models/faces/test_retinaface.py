"""RetinaFace: the published networks key by key, coordinates, and what the order of photos does not change."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bfr_models.errors import BfrError
from bfr_models.faces import retinaface
from bfr_models.faces.align import align, transform_points
from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.faces.retinaface import RetinaFaceDetector, suppress
from bfr_models.faces.types import DetectedFace, Detector
from bfr_models.networks.retinaface import Body, RetinaFace
from bfr_models.pixels import Uint8Image
from tests.support import ROOT


@pytest.fixture(scope="module")
def trained() -> RetinaFaceDetector:
    """The small network with published weights, where they are at hand."""
    folder = Path(os.environ.get("BFR_SHARED") or ROOT.parent / "shared")
    path = folder / "weights" / "retinaface_mobilenet0.25_m2man.pth"
    if not path.exists():
        pytest.skip("no RetinaFace weights here: BFR_SHARED names the folder that has weights/")
    return RetinaFaceDetector(path)


def random_network(body: Body) -> RetinaFace:
    torch.manual_seed(0)
    network = RetinaFace(body)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> RetinaFaceDetector:
    """Finds faces everywhere and nowhere: for what does not depend on the weights."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    network = random_network("mobilenet0.25")
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    with torch.inference_mode():
        scores, *_ = network(torch.from_numpy(noise(256, 256).transpose(2, 0, 1)[None].astype(np.float32)) - 110)
    return RetinaFaceDetector(path, threshold=float(scores.quantile(0.98)))


def noise(height: int, width: int, seed: int = 0) -> Uint8Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(faces: list[DetectedFace]) -> list[tuple[Any, ...]]:
    return [(*face.box, face.score, *face.landmarks.flatten().tolist()) for face in faces]


def resized(image: Uint8Image, scale: float) -> Uint8Image:
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), dtype=np.uint8)


@pytest.mark.parametrize(("body", "parameters"), [("mobilenet0.25", 426_608), ("resnet50", 27_293_600)])
def test_the_networks_have_the_published_size_and_names(body: Body, parameters: int) -> None:
    network = RetinaFace(body)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    first = {"mobilenet0.25": "body.stage1.0.0.weight", "resnet50": "body.conv1.weight"}[body]
    names = list(network.state_dict())
    assert names[0] == first and names[-1] == "LandmarkHead.2.conv1x1.bias"
    assert {"fpn.merge1.0.weight", "ssh3.conv7x7_3.1.running_var", "ClassHead.0.conv1x1.weight"} <= set(names)


@pytest.mark.parametrize(("body", "name"), [("mobilenet0.25", "mobile0.25"), ("resnet50", "resnet50")])
def test_outputs_are_those_of_facexlib(body: Body, name: str) -> None:
    try:
        theirs = import_module("facexlib.detection.retinaface").RetinaFace(name)
    except Exception as error:  # absent, or a torchvision that does not fit this torch
        pytest.skip(f"facexlib does not import: {error!r:.80}")
    network = random_network(body)
    assert list(theirs.state_dict()) == list(network.state_dict())
    theirs.load_state_dict(network.state_dict())
    picture = torch.from_numpy(noise(160, 224).transpose(2, 0, 1)[None].astype(np.float32)) - 110
    with torch.inference_mode():
        boxes, classes, landmarks = theirs.cpu()(picture)
        ours = network(picture)
    for found, expected in zip(ours, (classes[..., 1], boxes, landmarks), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_faces_are_those_of_facexlib(trained: RetinaFaceDetector, hopper: Uint8Image) -> None:
    try:
        theirs = import_module("facexlib.detection.retinaface").RetinaFace("mobile0.25").cpu()
    except Exception as error:  # as above
        pytest.skip(f"facexlib does not import: {error!r:.80}")
    theirs.load_state_dict(trained._network.state_dict())
    photo = np.ascontiguousarray(hopper[:512, :512])  # needs no padding
    with torch.inference_mode():
        (expected,) = theirs.detect_faces(photo[..., ::-1].copy(), conf_threshold=0.8)
    (found,) = trained._detect_on_canvas([photo])[0]
    np.testing.assert_allclose([*found.box, found.score, *found.landmarks.flatten()], expected, rtol=1e-4, atol=1e-2)


def test_anchors_are_in_rows_two_to_a_place() -> None:
    expected = [
        ((x + 0.5) * stride, (y + 0.5) * stride, side, side)
        for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
        for y, x, side in product(range(128 // stride), range(256 // stride), sides)
    ]
    np.testing.assert_array_equal(retinaface._anchors(128, 256), np.array(expected, np.float32))


def test_offsets_of_zero_are_the_anchors() -> None:
    anchors = retinaface._anchors(128, 128)[:5]
    boxes = retinaface.decode_boxes(anchors, np.zeros((5, 4), np.float32))
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, :2])
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], anchors[:, 2:])
    moved = retinaface.decode_boxes(anchors, np.tile(np.float32([10, 0, 5 * np.log(2), 0]), (5, 1)))
    np.testing.assert_allclose(
        moved.mean(axis=0) - boxes.mean(axis=0), anchors[:, 2].mean() * np.array([0.5, 0, 1.5, 0])
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 30), overlap=st.sampled_from([0.2, 0.4, 0.7]))
def test_of_two_boxes_that_overlap_the_surer_one_is_kept(seed: int, count: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    kept = suppress(boxes, scores, overlap)
    expected: list[int] = []
    for place in sorted(range(count), key=lambda place: -scores[place]):
        if all(iou(boxes[place], boxes[other]) <= overlap for other in expected):
            expected.append(place)
    assert kept == expected


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(width * height / (sum(areas) - width * height))


def test_photos_in_one_call_have_the_faces_that_each_has_alone(
    untrained: RetinaFaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(retinaface.CALL_PIXELS, "cpu", 3 * 256 * 256)  # as on a GPU
    photos = [noise(256, 256, 1), noise(100, 256, 2), noise(256, 256, 3), *(noise(250, 240, i) for i in range(4, 8))]
    alone = [untrained.detect(photo) for photo in photos]
    assert all(alone) and untrained.detect_all([]) == []
    for found, expected in zip(untrained.detect_all(photos), alone, strict=True):
        np.testing.assert_allclose(sorted(plain(found)), sorted(plain(expected)), rtol=1e-4, atol=1e-3)


def test_threads_share_one_detector(untrained: RetinaFaceDetector) -> None:
    photos = [noise(256, 256, 1), noise(130, 300, 2)] * 4
    alone = [plain(untrained.detect(photo)) for photo in photos[:2]] * 4
    with ThreadPoolExecutor(2) as pool:
        assert [plain(faces) for faces in pool.map(untrained.detect, photos)] == alone


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5000, 3), (300, 200, 3)])
def test_no_face_gives_an_empty_list(trained: RetinaFaceDetector, shape: tuple[int, int, int]) -> None:
    found: Detector = trained
    assert found.detect(np.full(shape, 127, dtype=np.uint8)) == []


@pytest.mark.parametrize("scale", [0.4, 1.0, 5.0])
def test_faces_lie_where_dlib_sees_them_at_any_scale(
    scale: float, trained: RetinaFaceDetector, detector: DlibDetector, hopper: Uint8Image, collins: Uint8Image
) -> None:
    for photo in (hopper, collins):
        _, expected = align(photo, detector.detect(photo)[0].landmarks, detector.template, 512)
        (face,) = trained.detect(resized(photo, scale))
        _, found = align(photo, (face.landmarks + 0.5) / scale - 0.5, trained.template, 512)
        square = np.array([(0.0, 0.0), (511.0, 0.0), (255.5, 255.5), (511.0, 511.0)])
        back = np.asarray(cv2.invertAffineTransform(found), dtype=np.float64)
        assert np.abs(transform_points(transform_points(square, back), expected) - square).max() < 40
        assert np.abs(transform_points(transform_points(square, back), expected) - square)[2].max() < 16


def test_the_larger_face_comes_first_and_small_ones_are_found(
    trained: RetinaFaceDetector, hopper: Uint8Image, collins: Uint8Image
) -> None:
    photo = np.pad(hopper, ((0, 0), (0, 1000), (0, 0)), mode="edge")
    photo[:512, 512:1024] = collins
    small = resized(collins, 0.25)  # her face is 20 px
    photo[300 : 300 + len(small), 1200 : 1200 + len(small)] = small
    first, second, third = trained.detect(photo)
    assert first.box[2] < 512 < second.box[0] and second.box[2] < 1200 < third.box[0]
    assert third.box[2] - third.box[0] < 25


@pytest.mark.parametrize("spoil", [lambda state: state.pop("fpn.merge1.0.weight"), lambda state: state.clear()])
def test_other_weights_are_refused(spoil: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    state = dict(RetinaFace("mobilenet0.25").state_dict())
    spoil(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(BfrError, match="expected weights of RetinaFace"):
        RetinaFaceDetector(tmp_path / "other.pth")
