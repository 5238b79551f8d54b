"""The extractor: its weights from the cache, its source, faces that do not depend on their batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bfr_models.errors import UsageError
from bfr_models.metrics.frechet import FeatureSource
from bfr_models.metrics.inception_features import WEIGHTS, InceptionFeatures
from bfr_models.networks.inception import Inception
from bfr_models.weights.tensors import parameters_of, save_weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    return tmp_path


def test_without_weights_it_says_how_to_get_them(cache: Path) -> None:
    with pytest.raises(UsageError, match="bfr weights fetch fid"):
        InceptionFeatures()


def test_faces_of_any_size_become_features(cache: Path) -> None:
    torch.manual_seed(0)
    sha256 = save_weights(parameters_of(Inception()), {}, cache / f"{WEIGHTS}.safetensors")
    extractor = InceptionFeatures(batch_size=2)
    assert extractor.source == FeatureSource("inception-2015-12-05", sha256, "pytorch-fid")
    assert extractor.source.metric == "fid"
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (32, 300)]
    together = extractor.extract(faces)
    assert together.shape == (2, 2048) and together.dtype == np.float32
    alone = np.concatenate([extractor.extract([face]) for face in faces])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6 * np.abs(alone).max())
    assert extractor.extract([]).shape == (0, 2048)


def test_the_published_files_sha256_is_the_networks(cache: Path) -> None:
    card: dict[str, object] = {"source": {"sha256": "6726825d"}}
    save_weights(parameters_of(Inception()), card, cache / f"{WEIGHTS}.safetensors")
    assert InceptionFeatures(preprocessing="clean-fid").source.sha256 == "6726825d"
