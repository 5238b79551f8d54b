"""The judge of the package: what it says of real faces."""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bfr_models.errors import BfrError
from bfr_models.faces.align import align
from bfr_models.faces.candidates import replaced
from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.judge.decision import choose_judge
from bfr_models.judge.judge import Judge
from bfr_models.judge.verdict import Verdict
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch, NetworkChoice

ESTIMATOR = resolve_method("estimator")
PORTRAITS = (("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"), ("skimage", "data/astronaut.png"))


@pytest.fixture(scope="module")
def judge() -> Judge:
    choice = choose_judge(ESTIMATOR)
    assert choice is not None, "the package has a judge that knows its networks"
    return Judge(choice)


@cache
def portrait(number: int, side: int) -> Uint8Image:
    package, file = PORTRAITS[number]
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    photo = np.asarray(Image.open(Path(spec.submodule_search_locations[0]) / file).convert("RGB"))
    detector = DlibDetector()
    crop, _ = align(photo, detector.detect(photo)[0].landmarks, detector.template, side)
    return crop


def worn(face: Uint8Image, blur: float, noise: float, quality: int) -> Uint8Image:
    """Blur in px of a face of 128 px, noise in grey levels."""
    image = cv2.GaussianBlur(face.astype(np.float32), (0, 0), blur * len(face) / 128)
    image = image + np.random.default_rng(0).normal(0, noise, face.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(image).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def verdict(judge: Judge, face: Uint8Image) -> Verdict:
    """On the estimator's face in its place."""
    batch = FaceBatch(("a",), face_tensor(face, 128)[None], (0,))
    restored = to_uint8(load_method(ESTIMATOR).restore(batch).images)[0]
    return judge.compare([face], [replaced(restored, face, None)])[0]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("side", [96, 200])
def test_a_sharp_face_is_not_given_away(judge: Judge, number: int, side: int) -> None:
    found = verdict(judge, portrait(number, side))
    assert found.gain < 0 and found.harm > 0.5


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("side", [96, 200])
def test_a_spoilt_face_is_worth_restoring(judge: Judge, number: int, side: int) -> None:
    found = verdict(judge, worn(portrait(number, side), blur=2.5, noise=15, quality=40))
    assert found.gain > 0.05 and judge.harm_limits(0.02).allow(found)


def test_noise_that_does_not_belong_is_harm(judge: Judge) -> None:
    face = portrait(0, 200)
    noisy = worn(face, blur=1, noise=25, quality=95)
    assert judge.compare([face], [noisy])[0].gain < -0.1 < 0.1 < judge.compare([noisy], [face])[0].gain


def test_a_verdict_does_not_depend_on_the_batch(judge: Judge) -> None:
    faces = [portrait(0, 96), worn(portrait(1, 200), 1, 8, 60)]
    others = [worn(faces[0], 1, 0, 90), portrait(1, 128)]
    together = judge.compare(faces, others)
    for one, face, other in zip(together, faces, others, strict=True):
        alone = judge.compare([face], [other])[0]
        assert alone.gain == pytest.approx(one.gain, abs=1e-4)


def test_damage_is_seen_without_a_candidate(judge: Judge) -> None:
    face = portrait(1, 160)
    sharp, blurred, noisy = judge.assess([face, worn(face, 1.5, 0, 95), worn(face, 0.05, 10, 95)])
    assert blurred.blur > sharp.blur + 0.5
    assert noisy.noise > sharp.noise + 4
    assert sharp.verdict.gain < blurred.verdict.gain


def test_another_file_is_refused() -> None:
    with pytest.raises(BfrError, match="every machine needs the same file"):
        Judge(NetworkChoice("judge", "0" * 64))
