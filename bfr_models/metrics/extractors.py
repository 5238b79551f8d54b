"""The feature networks of a Fréchet distance: FID's Inception if its weights are installed, else a face recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import UsageError, unknown
from bfr_models.faces.recognisers import RECOGNISERS, WHY_NONE, choose_recogniser, load_recogniser
from bfr_models.metrics.frechet import INCEPTION, FeatureSource
from bfr_models.weights.files import find_weight

if TYPE_CHECKING:  # they import torch, which a driver never needs
    from bfr_models.faces.types import Recogniser
    from bfr_models.pixels import Uint8Image

PREPROCESSING = ("pytorch-fid", "clean-fid")
NETWORKS = {"inception": INCEPTION, **RECOGNISERS}
"""The command line's names of the networks, and the names of their features."""

FEATURES = ("auto", *NETWORKS)
INCEPTION_WEIGHTS = "fid-inception"
WHY_NO_FID = (
    "the weights of FID's Inception (2015-12-05) are not here: bfr weights fetch fid/inception, or give --features "
    "dlib for a Fréchet distance of another name"
)


class Extractor(Protocol):
    """Turns aligned faces into features."""

    @property
    def source(self) -> FeatureSource: ...

    def extract(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        """Faces of any sizes -> (n, d) float32, in the same order."""
        ...


class RecogniserFeatures:
    """A recogniser's embeddings as features: their distance is `fd_<recogniser>`, never FID."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self.source = FeatureSource(recogniser.name, recogniser.sha256)

    def extract(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        return self._recogniser.embed(faces)


def load_extractor(features: str, preprocessing: str, device: str) -> Extractor:
    """The network by name; `auto` is the Inception if its weights are installed, else the recogniser that a run would
    use. UsageError, which says what to do, if it is not installed."""
    if features not in FEATURES:
        raise unknown("features", features, FEATURES)
    if preprocessing not in PREPROCESSING:
        raise unknown("preprocessing", preprocessing, PREPROCESSING)
    if features == "inception" or (features == "auto" and find_weight(INCEPTION_WEIGHTS)):
        from bfr_models.metrics.inception_features import InceptionFeatures

        return InceptionFeatures(device, preprocessing)
    recogniser = load_recogniser(choose_recogniser(features), device)
    if recogniser is None:
        raise UsageError(f"expected a network for features, found none: {WHY_NO_FID}; {WHY_NONE}")
    return RecogniserFeatures(recogniser)
