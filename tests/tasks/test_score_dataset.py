"""A separate pass scores as the run did, row for row; rows that cannot be scored stay and say why."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.config.score import ScoreRun
from tasks.score_dataset import METRICS, score_dataset
from tests import support

pytest.importorskip("dlib")


def test_scores_of_a_run_are_found_again(tmp_path: Path) -> None:
    rows = support.make_rows(5)
    for i, row in enumerate(rows):
        row["gt"] = {"bytes": support.encoded(support.portrait(60 + i)), "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path, "estimator", gt_column="gt", keep_input=True, size="network")
    support.finished_run(run)
    columns = {"lq_column": "image", "gt_column": "gt"}
    found = score_dataset(ScoreRun(source=run.destination, destination=str(tmp_path / "scores"), **columns))
    scores = {row["id"]: row for row in pq.read_table(tmp_path / "scores").to_pylist()}
    assert len(scores) == 5
    for ours in support.read_table(tmp_path / "dst" / "data").to_pylist():
        theirs = scores[ours["id"]]
        assert theirs["error"] is None
        for metric in ("identity_similarity", "identity_similarity_gt", "psnr", "ssim"):
            assert theirs[metric] == pytest.approx(ours[metric], rel=1e-6), metric
        assert theirs["sharpness"] == pytest.approx(ours["faces"][0]["sharpness"], rel=1e-6)
    statistics = support.read_record(tmp_path / "dst")["statistics"]
    assert found["statistics"]["psnr"]["mean"] == pytest.approx(statistics["psnr"]["mean"], rel=1e-6)
    name = "fd_dlib_resnet_v1"
    assert found["statistics"][name]["value"] == pytest.approx(statistics[name]["value"], rel=1e-6)


def test_rows_that_cannot_be_scored_say_why(tmp_path: Path) -> None:
    rows = support.make_rows(4)
    for row, gt in zip(rows, (support.encoded(support.portrait(7)), b"broken", None, b""), strict=True):
        row["gt"] = {"bytes": gt, "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = ScoreRun(source=str(tmp_path / "src"), destination=str(tmp_path / "out"), column="image", gt_column="gt")
    found = score_dataset(run)
    scores = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in scores] == [f"a.parquet#{i}" for i in range(4)]
    assert [row["error"] and row["error"].partition(":")[0] for row in scores] == [
        None, "undecodable", "missing", "undecodable",
    ]  # fmt: skip
    assert all(scores[1][metric] is None for metric in METRICS)
    assert scores[0]["psnr"] is not None and scores[0]["identity_similarity"] is None  # nothing to be similar to
    assert (found["rows"], found["failed"]) == (4, 3)


def test_a_face_that_is_too_small_for_a_metric_costs_no_other(tmp_path: Path) -> None:
    rows = [row | {"gt": row["image"]} for row in (*support.make_rows(2), *support.make_rows(1, side=8))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = ScoreRun(source=str(tmp_path / "src"), destination=str(tmp_path / "out"), column="image", gt_column="gt")
    found = score_dataset(run)
    assert (found["rows"], found["failed"], found["statistics"]["ssim"]["n"]) == (3, 1, 2)
    errors = pq.read_table(tmp_path / "out")["error"].to_pylist()
    assert errors[:2] == [None, None] and "expected sides of at least 11 px" in errors[2]


def test_scores_do_not_take_the_place_of_the_faces_that_they_are_of(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "part-00000.parquet", support.make_rows(1))
    before = support.snapshot(tmp_path)
    with pytest.raises(UsageError, match="expected a destination outside"):
        score_dataset(ScoreRun(source=str(tmp_path), destination=str(tmp_path), column="image", overwrite=True))
    assert support.snapshot(tmp_path) == before


def test_a_run_is_no_place_for_scores_and_other_scores_are_replaced_only_when_asked(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    run = ScoreRun(source=str(tmp_path / "src"), destination=str(tmp_path / "run"), column="image", recogniser="none")
    with pytest.raises(UsageError, match=r"found run\.json"):
        score_dataset(run)
    run = run.model_copy(update={"destination": str(tmp_path / "out")})
    for _ in range(2):
        score_dataset(run)
    with pytest.raises(UsageError, match="--overwrite"):
        score_dataset(run.model_copy(update={"gt_column": "image"}))
    score_dataset(run.model_copy(update={"gt_column": "image", "overwrite": True}))
    assert pq.read_table(tmp_path / "out").to_pylist()[0]["ssim"] == pytest.approx(1)
