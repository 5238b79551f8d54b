"""A run's Fréchet distances do not depend on how it is split, and equal those of its images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bfr_models.metrics.extractors import INCEPTION_WEIGHTS, load_extractor
from bfr_models.metrics.frechet import FeatureStatistics
from bfr_models.networks.inception import Inception
from bfr_models.pixels import face_tensor, to_uint8
from bfr_models.weights.tensors import parameters_of, save_weights
from flows.restore_dataset import restore_without_prefect
from tasks.measure_distance import measure_distance
from tests import support

pytest.importorskip("dlib")
DLIB = "fd_dlib_resnet_v1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six faces, each with a different face as its ground truth; one has none."""
    rows = support.make_rows(6)
    for i, row in enumerate(rows):
        row["gt"] = {"bytes": None if i == 4 else support.encoded(support.portrait(60 + i)), "path": None}
    folder = tmp_path_factory.mktemp("pairs")
    support.write_parquet(folder / "src" / "a.parquet", rows, group_rows=1)
    return folder / "src"


def statistics(folder: Path, source: Path, **settings: Any) -> dict[str, Any]:
    run = support.make_run(folder, source=str(source), size="network", **settings)
    restore_without_prefect(run)
    return support.read_record(Path(run.destination))["statistics"]


def test_any_split_gives_the_distance_of_all_faces_together(source: Path, tmp_path: Path) -> None:
    found = [statistics(tmp_path / str(rows), source, gt_column="gt", shard_rows=rows)[DLIB] for rows in (1, 4)]
    assert (found[0]["n"], found[0]["n_reference"], found[0]["reference"]) == (6, 5, "gt")
    assert found[1]["value"] == pytest.approx(found[0]["value"], rel=1e-9)
    extractor = load_extractor("dlib", "pytorch-fid", "cpu")
    gt = extractor.extract([to_uint8(face_tensor(support.portrait(60 + i), 128)) for i in range(6) if i != 4])
    reference = FeatureStatistics.from_features(gt, extractor.source, "gt").gaussian()
    (tmp_path / "gt.npz").write_bytes(reference.to_npz())
    against = statistics(tmp_path / "npz", source, fid_reference=str(tmp_path / "gt.npz"))[DLIB]
    assert against["value"] == pytest.approx(found[0]["value"], rel=1e-9)
    assert against["reference"] == str(tmp_path / "gt.npz")
    pictures = measure_distance(str(tmp_path / "1" / "dst"), str(tmp_path / "gt.npz"), features="dlib")[DLIB]
    assert pictures == pytest.approx(found[0]["value"], rel=1e-9)


def test_embeddings_are_kept_on_request_alone(source: Path, tmp_path: Path) -> None:
    statistics(tmp_path / "without", source, gt_column="gt")
    assert not (tmp_path / "without" / "dst" / "features").exists()
    kept = statistics(tmp_path / "with", source, keep_embeddings=True)
    assert DLIB not in kept and "nothing to compare with" not in kept["fid"]["why"]  # its weights are not here
    folder = tmp_path / "with" / "dst" / "features"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    rows = support.read_table(folder).to_pylist()
    assert [row["id"] for row in rows] == [f"a.parquet#{i}" for i in range(6)]
    assert all(np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-5) for row in rows)
    statistics(tmp_path / "gt", source, keep_embeddings=True, gt_column="gt")
    of_gt = support.read_table(tmp_path / "gt" / "dst" / "features")["embedding_gt"]
    assert len(of_gt) == 6 and of_gt.null_count == 1


@pytest.mark.long
def test_fid_comes_from_the_features_of_every_face(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    save_weights(parameters_of(Inception()), {}, tmp_path / "weights" / f"{INCEPTION_WEIGHTS}.safetensors")
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "weights"))
    found = statistics(tmp_path, source, gt_column="gt", recogniser="none")
    assert DLIB not in found
    assert (found["fid"]["n"], found["fid"]["n_reference"]) == (6, 5)
    features = support.read_table(tmp_path / "dst" / "features")
    assert features.num_rows == 6 and features["inception_gt"].null_count == 1
    for path in (tmp_path / "dst" / "features").glob("*.parquet"):
        about = json.loads(pq.read_schema(path).metadata[b"inception"])
        assert (about["network"], about["preprocessing"]) == ("inception-2015-12-05", "pytorch-fid")


def test_a_reference_of_another_network_leaves_a_distance_out_and_not_the_run_unfinished(
    source: Path, tmp_path: Path
) -> None:
    """FFHQ's statistics by Inception, as pytorch-fid writes them, beside dlib's embeddings."""
    mean, covariance = np.zeros(2048), np.eye(2048)
    np.savez(tmp_path / "ffhq.npz", mu=mean, sigma=covariance)
    found = statistics(tmp_path, source, fid_reference=str(tmp_path / "ffhq.npz"))[DLIB]
    assert found["value"] is None and "2048" in found["why"]
