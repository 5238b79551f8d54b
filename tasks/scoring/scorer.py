"""Scores of restored faces, on the pixels that are written.

Those of a face that lost its identity are the input's: its similarity says why, all other scores describe the output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from bfr_models.faces.dlib_models import DlibLandmarks
from bfr_models.faces.recognisers import load_recogniser
from bfr_models.faces.types import Recogniser
from bfr_models.metrics.extractors import Extractor
from bfr_models.metrics.fidelity import MS_SSIM_SIDE, ms_ssim, psnr, sharpness, ssim
from bfr_models.metrics.identity import Vectors, angle_degrees, cosine
from bfr_models.metrics.inception_features import InceptionFeatures
from bfr_models.metrics.landmarks import landmark_distance
from bfr_models.metrics.lpips import LPIPS, load_lpips
from bfr_models.metrics.measures import Measures
from bfr_models.metrics.niqe import niqe
from bfr_models.networks.imagenet_trunks import TrunkName
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.types import NetworkChoice
from tasks.runs.outcomes import KEPT_ORIGINAL, RESTORED
from tasks.scoring.face_vectors import FaceFeatures, Vector


@dataclass(frozen=True, eq=False)
class ScoredFace:
    """A face as it is written, and its scores."""

    face: Uint8Image
    outcome: str  # KEPT_ORIGINAL if the identity was lost
    identity_similarity: float | None  # of the restored face, even if it was not kept
    identity_similarity_gt: float | None
    identity_degrees: float | None  # the same as angles
    identity_degrees_gt: float | None
    psnr: float | None
    ssim: float | None
    lpips: float | None
    sharpness: float
    ms_ssim: float | None = None
    niqe: float | None = None
    lmd_dlib_5: float | None = None  # in px of the face
    features: FaceFeatures = field(default_factory=FaceFeatures)


@dataclass(frozen=True, eq=False)
class FaceTriple:
    """A face before and after the method, at the method's size, and its ground truth."""

    lq: Uint8Image
    restored: Uint8Image
    gt: Uint8Image | None

    def named_images(self) -> Iterator[tuple[str, Uint8Image]]:
        yield "lq", self.lq
        yield "restored", self.restored
        if self.gt is not None:
            yield "gt", self.gt


@dataclass(frozen=True, eq=False)
class _Embedded:
    """The embeddings of one face: `places` maps an image's name to its vector. Equal images share one."""

    places: Mapping[str, int]
    vectors: Sequence[Vector] | NDArray[np.float32]

    def similarity(self, name: str, other: str) -> float | None:
        """The cosine of two images; None if one is not there."""
        return self._compared(cosine, 1.0, name, other)

    def degrees(self, name: str, other: str) -> float | None:
        """The angle between two images, in [0, 180]; None if one is not there."""
        return self._compared(angle_degrees, 0.0, name, other)

    def _compared(
        self, compare: Callable[[Vectors, Vectors], NDArray[np.float64]], of_equals: float, name: str, other: str
    ) -> float | None:
        if name not in self.places or other not in self.places:
            return None
        a, b = self.places[name], self.places[other]
        return of_equals if a == b else float(compare(self.vectors[a][None], self.vectors[b][None])[0])

    def vector(self, name: str) -> Vector | None:
        return self.vectors[self.places[name]] if name in self.places and len(self.vectors) else None


class Scorer:
    """Holds the networks that score, None for those not in use. Each is called once per batch of faces.

    A face below `min_identity` keeps the input's pixels, and these are compared with gt. With `keeps_embeddings`, even
    a face that has not changed is embedded, though its similarity is known to be 1.
    """

    def __init__(
        self,
        recogniser: Recogniser | None = None,
        lpips: LPIPS | None = None,
        inception: Extractor | None = None,
        *,
        min_identity: float | None = None,
        keeps_embeddings: bool = False,
        extra: Collection[str] = (),
    ) -> None:
        self._recogniser, self._lpips, self.inception = recogniser, lpips, inception
        self._extra, self._landmarks = extra, DlibLandmarks() if "lmd" in extra else None
        self._min_identity, self._keeps_embeddings = min_identity, keeps_embeddings

    @property
    def has_networks(self) -> bool:
        """Whether batches are of use."""
        return any(network is not None for network in (self._recogniser, self._lpips, self.inception))

    def score(self, faces: Sequence[FaceTriple]) -> list[ScoredFace]:
        """The scores of some faces; they do not depend on the others in the call."""
        embedded = self._embed(faces)
        similarities = [found.similarity("lq", "restored") for found in embedded]
        lost = [self._is_lost(similarity) for similarity in similarities]
        kept = [face.lq if is_lost else face.restored for face, is_lost in zip(faces, lost, strict=True)]
        distances, seen = self._distances(kept, faces), self._inception_features(kept, faces)
        scored = []
        for i, (face, pixels, found) in enumerate(zip(faces, kept, embedded, strict=True)):
            name = "lq" if lost[i] else "restored"
            own = (found.vector(name), found.vector("gt")) if self._keeps_embeddings else (None, None)
            scored.append(
                ScoredFace(
                    face=pixels,
                    outcome=f"{KEPT_ORIGINAL}: identity below {self._min_identity:g}" if lost[i] else RESTORED,
                    identity_similarity=similarities[i],
                    identity_similarity_gt=found.similarity("gt", name),
                    identity_degrees=found.degrees("lq", "restored"),
                    identity_degrees_gt=found.degrees("gt", name),
                    psnr=None if face.gt is None else psnr(pixels, face.gt),
                    ssim=None if face.gt is None else ssim(pixels, face.gt),
                    lpips=distances.get(i),
                    sharpness=sharpness(pixels),
                    **self._extra_scores(pixels, face.gt),
                    features=FaceFeatures(*seen[i], *own),
                )
            )
        return scored

    def _extra_scores(self, pixels: Uint8Image, gt: Uint8Image | None) -> dict[str, float | None]:
        """The requested extra metrics, except where the face is too small for one."""
        scores: dict[str, float | None] = {}
        if "niqe" in self._extra:
            scores["niqe"] = niqe(pixels).value
        if "ms_ssim" in self._extra and gt is not None and min(pixels.shape[:2]) >= MS_SSIM_SIDE:
            scores["ms_ssim"] = ms_ssim(pixels, gt)
        if self._landmarks is not None and gt is not None:
            points, reference = (self._landmarks.of_aligned(face)[None] for face in (pixels, gt))
            name, distances = landmark_distance(points, reference, "dlib_5")
            scores[name] = float(distances[0])
        return scores

    def _is_lost(self, similarity: float | None) -> bool:
        return self._min_identity is not None and similarity is not None and similarity < self._min_identity

    def _embed(self, faces: Sequence[FaceTriple]) -> list[_Embedded]:
        """Embeds the images of all faces in one call, each distinct image once.

        Equal images are common: a row may be its own ground truth, and passthrough returns what it was given.
        """
        if self._recogniser is None:
            return [_Embedded({}, ())] * len(faces)
        images: list[Uint8Image] = []
        embedded = []
        for face in faces:
            places: dict[str, int] = {}
            distinct: list[Uint8Image] = []
            for name, image in face.named_images():
                twins = (i for i, other in enumerate(distinct) if np.array_equal(other, image))
                places[name] = next(twins, len(distinct))
                if places[name] == len(distinct):
                    distinct.append(image)
            if len(distinct) == 1 and not self._keeps_embeddings:
                distinct = []  # nothing has changed: the similarity is 1, without a network
            embedded.append((places, slice(len(images), len(images) + len(distinct))))
            images += distinct
        vectors = self._recogniser.embed(images) if images else ()
        return [_Embedded(places, vectors[own]) for places, own in embedded]

    def _distances(self, kept: Sequence[Uint8Image], faces: Sequence[FaceTriple]) -> dict[int, float]:
        """LPIPS to gt, by the index of the face."""
        gts = {i: face.gt for i, face in enumerate(faces) if face.gt is not None}
        if self._lpips is None or not gts:
            return {}
        images = torch.stack([to_tensor(kept[i]) for i in gts])
        references = torch.stack([to_tensor(gt) for gt in gts.values()])
        return dict(zip(gts, self._lpips(images, references).tolist(), strict=True))

    def _inception_features(
        self, kept: Sequence[Uint8Image], faces: Sequence[FaceTriple]
    ) -> list[tuple[Vector | None, Vector | None]]:
        """The Inception features of each face and of its gt."""
        if self.inception is None:
            return [(None, None)] * len(kept)
        gts = {i: face.gt for i, face in enumerate(faces) if face.gt is not None}
        features = self.inception.extract([*kept, *gts.values()])
        of_gt = dict(zip(gts, features[len(kept) :], strict=True))
        return [(features[i], of_gt.get(i)) for i in range(len(kept))]


def load_scorer(
    recogniser: NetworkChoice | None, measures: Measures, device: str, min_identity: float | None = None
) -> Scorer:
    """The scorer with the chosen networks, loaded onto `device`."""
    trunk = cast(TrunkName, measures.lpips.name.removeprefix("lpips_")) if measures.lpips else None
    return Scorer(
        load_recogniser(recogniser, device),
        load_lpips(trunk, device) if trunk else None,
        InceptionFeatures(device) if measures.inception else None,
        min_identity=min_identity,
        keeps_embeddings=recogniser is not None and (measures.distances or measures.keep_embeddings),
        extra=measures.extra,
    )
