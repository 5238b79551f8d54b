"""The statistics of a curated dataset are those of its own rows."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bfr_models.metrics.frechet import INCEPTION, FeatureSource, FeatureStatistics, frechet_distance
from tasks.scoring.subset_statistics import OF_THE_RUN
from tests import support
from tests.tasks.curation.curated import curated, run_rows, with_features


def test_statistics_are_those_of_the_kept_rows(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(hostile_run, tmp_path, where="n % 2 = 0")
    for name in ("psnr", "ssim"):
        values = np.array([row[name] for row in rows], np.float64)
        found = record["statistics"][name]
        assert found["n"] == len(values) == 9
        assert found["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert found["std"] == pytest.approx(values.std(ddof=1), rel=1e-6)
    why = support.read_record(hostile_run)["statistics"]["identity_similarity"]["why"]
    assert record["statistics"]["identity_similarity"] == {"value": None, "why": why}
    assert record["statistics"]["fid"]["value"] is None and record["statistics"]["fid"]["why"]


def test_everything_kept_has_the_statistics_of_the_run(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(hostile_run, tmp_path)
    before = support.read_record(hostile_run)["statistics"]
    assert len(rows) == 17
    for name in ("psnr", "ssim", "identity_similarity", "fid"):
        assert record["statistics"][name] == before[name]


def test_fid_is_that_of_the_kept_faces_and_of_their_ground_truth(hostile_run: Path, tmp_path: Path) -> None:
    run, features, gt = with_features(hostile_run, tmp_path / "run")
    record, rows = curated(run, tmp_path, where="n > 3")
    numbers = [row["n"] for row in run_rows(run)]
    kept = np.array([number > 3 for number in numbers])
    source = FeatureSource(INCEPTION, "ab", "pytorch-fid")
    sides = [FeatureStatistics.from_features(side[kept], source, "all").gaussian() for side in (features, gt)]
    found = record["statistics"]["fid"]
    assert found["value"] == pytest.approx(frechet_distance(*sides).value, rel=1e-9)
    assert (found["n"], found["n_reference"], found["reference"]) == (len(rows), len(rows), "gt") == (14, 14, "gt")


def distance_of(run: Path, numbers: slice, gt_numbers: slice) -> float:
    features = support.read_table(run / "features")
    source = FeatureSource("dlib_resnet_v1", None)
    sides = [(features["embedding"], numbers), (features["embedding_gt"], gt_numbers)]
    a, b = (
        FeatureStatistics.from_features(np.stack(column.to_numpy())[rows], source, "all").gaussian()
        for column, rows in sides
    )
    return frechet_distance(a, b).value


def test_embeddings_are_compared_with_those_of_the_kept_rows_ground_truth(embedded: Path, tmp_path: Path) -> None:
    record, _ = curated(embedded, tmp_path, where="n > 1")
    found = record["statistics"]["fd_dlib_resnet_v1"]
    assert (found["n"], found["n_reference"], found["reference"]) == (4, 4, "gt")
    assert found["value"] == pytest.approx(distance_of(embedded, slice(2, 6), slice(2, 6)), rel=1e-9)


def test_a_run_without_the_embeddings_of_its_ground_truth_says_what_stood_for_it(
    embedded: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(embedded, older)
    (path,) = (older / "features").iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["embedding_gt"]), path)
    record, _ = curated(older, tmp_path, where="n > 1")
    found = record["statistics"]["fd_dlib_resnet_v1"]
    assert (found["n"], found["n_reference"], found["reference"]) == (4, 6, OF_THE_RUN)
    assert found["value"] == pytest.approx(distance_of(embedded, slice(2, 6), slice(0, 6)), rel=1e-9)


def test_a_distance_from_many_parts_is_that_of_all_kept_faces_in_float64(
    hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-9, the precision of the statistics, computed without their code."""
    monkeypatch.setattr("tasks.scoring.subset_statistics._TOGETHER", 3)
    run, features, gt = with_features(hostile_run, tmp_path / "run")
    record, _ = curated(run, tmp_path, where="n > 3")
    kept = np.array([row["n"] > 3 for row in run_rows(run)])
    (m, a), (k, b) = ((x.mean(0), np.cov(x.T)) for x in (side[kept].astype(np.float64) for side in (features, gt)))
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(np.complex128)).real.sum()
    expected = ((m - k) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots
    assert record["statistics"]["fid"]["value"] == pytest.approx(expected, rel=1e-9)


def test_features_of_other_rows_are_not_taken(hostile_run: Path, tmp_path: Path) -> None:
    run, _, _ = with_features(hostile_run, tmp_path / "run")
    first, second = sorted((run / "features").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(Exception, match="bfr verify"):
        curated(run, tmp_path)
