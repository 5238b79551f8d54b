"""Scores are those of the written pixels; each face is embedded once; LPIPS and features keep their order."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bfr_models.metrics.fidelity import ms_ssim
from bfr_models.metrics.frechet import FeatureSource
from bfr_models.metrics.lpips import LPIPS
from bfr_models.metrics.niqe import niqe
from bfr_models.pixels import Uint8Image, to_tensor
from tasks.runs.outcomes import KEPT_ORIGINAL, RESTORED, outcome_word
from tasks.scoring.scorer import FaceTriple, Scorer
from tests import support


class Thumbnails:
    """A recogniser in closed form: a face's 4 x 4 block means, centred, of unit length."""

    name, sha256 = "thumbnails", "0" * 64
    source = FeatureSource("thumbnails")

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        self.seen += len(faces)
        return np.stack([self._vector(face) for face in faces])

    extract = embed

    def _vector(self, face: Uint8Image) -> NDArray[np.float32]:
        side = len(face) // 4
        means = face.reshape(4, side, 4, side, 3).mean(axis=(1, 3, 4)).ravel()
        centred = means - means.mean()
        return (centred / np.linalg.norm(centred)).astype(np.float32)


def faces(count: int, gt: bool = True) -> list[FaceTriple]:
    own = [support.portrait(i, 64) for i in range(3 * count)]
    return [FaceTriple(own[3 * i], own[3 * i + 1], own[3 * i + 2] if gt else None) for i in range(count)]


def test_similarities_are_the_cosines_of_their_own_pictures() -> None:
    recogniser = Thumbnails()
    unscored = faces(3)
    for face, scored in zip(unscored, Scorer(recogniser).score(unscored), strict=True):
        assert face.gt is not None
        lq, restored, gt = recogniser.embed([face.lq, face.restored, face.gt]).astype(np.float64)
        assert scored.identity_similarity == pytest.approx(lq @ restored, abs=1e-6)
        assert scored.identity_similarity_gt == pytest.approx(gt @ restored, abs=1e-6)
        assert scored.features.embedding is None  # nobody asked for biometric data
        assert np.array_equal(scored.face, face.restored)


def test_equal_pictures_are_embedded_once_and_unchanged_faces_not_at_all() -> None:
    a, b = support.portrait(1, 64), support.portrait(2, 64)
    recogniser = Thumbnails()
    same, restored, perfect = Scorer(recogniser).score(
        [FaceTriple(a, a, None), FaceTriple(a, a, b), FaceTriple(a, b, b)]
    )
    assert recogniser.seen == 2 + 2
    assert same.identity_similarity == restored.identity_similarity == perfect.identity_similarity_gt == 1.0
    assert same.identity_similarity_gt is None
    assert restored.identity_similarity_gt == perfect.identity_similarity != 1.0


def test_kept_embeddings_are_those_of_the_written_face_and_of_gt() -> None:
    recogniser, (face,) = Thumbnails(), faces(1)
    assert face.gt is not None
    similarity = Scorer(recogniser).score([face])[0].identity_similarity
    assert similarity is not None
    for threshold, outcome, written in (
        (similarity - 0.01, RESTORED, face.restored),
        (similarity + 0.01, KEPT_ORIGINAL, face.lq),
    ):
        (scored,) = Scorer(recogniser, min_identity=threshold, keeps_embeddings=True).score([face])
        assert outcome_word(scored.outcome) == outcome and np.array_equal(scored.face, written)
        assert scored.identity_similarity == similarity  # also of a face that was not kept
        expected = recogniser.embed([written, face.gt])
        assert np.array_equal(scored.features.embedding, expected[0])
        assert np.array_equal(scored.features.embedding_gt, expected[1])
    unchanged = Scorer(recogniser, keeps_embeddings=True).score([FaceTriple(face.lq, face.lq, None)])[0]
    assert np.array_equal(unchanged.features.embedding, recogniser.embed([face.lq])[0])


def test_lpips_and_features_find_their_rows_where_some_have_no_ground_truth() -> None:
    torch.manual_seed(0)
    lpips, network = LPIPS("squeeze").eval(), Thumbnails()
    unscored = [*faces(1), *faces(1, gt=False), faces(3)[2]]
    scored = Scorer(lpips=lpips, inception=network).score(unscored)
    assert [one.lpips is None for one in scored] == [False, True, False]
    for face, one in zip(unscored, scored, strict=True):
        assert np.array_equal(one.features.inception, network.extract([face.restored])[0])
        if face.gt is None:
            assert one.features.inception_gt is None
        else:
            alone = lpips(to_tensor(face.restored)[None], to_tensor(face.gt)[None])
            assert one.lpips == pytest.approx(float(alone), rel=1e-5)
            assert np.array_equal(one.features.inception_gt, network.extract([face.gt])[0])


def test_angles_are_those_of_the_similarities() -> None:
    (one,) = Scorer(Thumbnails()).score(faces(1))
    (same,) = Scorer(Thumbnails()).score([FaceTriple(one.face, one.face, one.face)])
    assert one.identity_degrees == pytest.approx(np.degrees(np.arccos(one.identity_similarity)), abs=1e-6)
    assert one.identity_degrees_gt == pytest.approx(np.degrees(np.arccos(one.identity_similarity_gt)), abs=1e-6)
    assert (same.identity_degrees, same.identity_degrees_gt) == (0.0, 0.0)


def test_what_is_not_asked_for_is_not_measured() -> None:
    (scored,) = Scorer().score(faces(1))
    assert (scored.ms_ssim, scored.niqe, scored.lmd_dlib_5) == (None, None, None)


def test_faces_too_small_for_a_metric_have_none() -> None:
    asked = Scorer(extra=("ms_ssim", "niqe"))
    small, large = (FaceTriple(*[support.portrait(i, side) for i in range(3)]) for side in (128, 256))
    (of_small, of_large) = asked.score([small, large])
    assert (of_small.ms_ssim, of_small.niqe) == (None, None)
    assert large.gt is not None and of_large.ms_ssim == ms_ssim(large.restored, large.gt)
    assert of_large.niqe == niqe(large.restored).value


def test_landmarks_of_an_untouched_face_are_where_they_were() -> None:
    pytest.importorskip("dlib")
    face, other = support.portrait(0, 128), support.portrait(1, 128)[::-1].copy()
    same, changed = Scorer(extra=("lmd",)).score([FaceTriple(face, face, face), FaceTriple(face, other, face)])
    assert same.lmd_dlib_5 == 0 and changed.lmd_dlib_5 is not None and changed.lmd_dlib_5 > 1
