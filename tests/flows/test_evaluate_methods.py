"""A comparison is fair or refused: the same rows in the same order, with one degradation."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bfr_models.errors import BfrError, UsageError
from flows.evaluate_methods import evaluate_methods
from flows.restore_dataset import restore_without_prefect
from tasks.compare_runs import compare_runs
from tasks.config.evaluate import EvaluateRun
from tests import support

METHODS = ("passthrough", "estimator")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Nine rows of two ids only, one of them broken."""
    rows = [row | {"id": f"twin-{i % 2}"} for i, row in enumerate(support.make_rows(9))]
    rows[3]["image"] = {"bytes": b"no picture", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    return tmp_path / "src"


@pytest.mark.usefixtures("prefect_server")
def test_methods_are_compared_on_the_same_degraded_rows_and_a_second_time_nothing_is_done(
    faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = {"source": str(faces), "destination": str(out)}
    run = EvaluateRun(**places, methods=METHODS, degrade="gfpgan", size=128, engine="local")
    result = evaluate_methods(run)
    report = out / "report"
    table = json.loads((report / "table.json").read_text())
    assert table["rows"] == 8  # the broken one has nothing to degrade
    assert list(table["methods"]) == list(METHODS)
    for name in METHODS:
        rows = pq.read_table(out / name / "data").to_pylist()
        scores = table["methods"][name]["psnr"]
        assert scores["mean"] == pytest.approx(sum(row["psnr"] for row in rows) / 8)
        assert scores["n"] == 8
    assert (report / "table.md").read_text().count("\n| ") == 2
    assert (report / "index.html").read_text().count('data-column="estimator"') == 8
    assert result["report"] == str(report / "index.html")

    before = support.snapshot(tmp_path / "out" / "lq") | support.snapshot(tmp_path / "out" / "estimator" / "data")
    evaluate_methods(run)
    assert before == support.snapshot(tmp_path / "out" / "lq") | support.snapshot(
        tmp_path / "out" / "estimator" / "data"
    )


def test_runs_over_other_rows_are_not_compared(tmp_path: Path) -> None:
    runs, records = [], []
    for number, name in enumerate(METHODS):
        folder = tmp_path / name
        support.write_parquet(folder / "src" / "a.parquet", support.make_rows(2 + number))
        runs.append(support.make_run(folder, name))
        records.append(restore_without_prefect(runs[-1]))
    with pytest.raises(BfrError, match=r"the same rows, found \{'passthrough': 2, 'estimator': 3\}"):
        compare_runs("two", runs, records, str(tmp_path / "report"))


def test_runs_that_restored_nothing_in_common_are_not_compared(tmp_path: Path) -> None:
    runs, records = [], []
    for name in METHODS:
        folder = tmp_path / name
        support.write_parquet(folder / "src" / "a.parquet", [row | {"id": name} for row in support.make_rows(2)])
        runs.append(support.make_run(folder, name))
        records.append(restore_without_prefect(runs[-1]))
    with pytest.raises(BfrError, match="found none"):
        compare_runs("two", runs, records, str(tmp_path / "report"))


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("failing", [0, 1])
def test_what_one_method_failed_on_is_compared_with_nothing_and_said(tmp_path: Path, failing: int) -> None:
    pytest.importorskip("dlib")
    rows = [row | {"id": f"raises-{i}" if i < failing else f"row-{i}"} for i, row in enumerate(support.make_rows(4))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    runs = [
        support.make_run(tmp_path, name, destination=str(tmp_path / name), gt_column="image", recogniser="dlib")
        for name in ("passthrough", "faulty")
    ]
    table = compare_runs("two", runs, [restore_without_prefect(run) for run in runs], str(tmp_path / "report"))
    assert (table["rows"], table["rejected"]) == (4 - failing, {"passthrough": 0, "faulty": failing})
    assert bool(table["distances"]["passthrough"]) is not bool(failing), "of other rows they cannot be compared"
    told = (tmp_path / "report" / "table.md").read_text()
    assert ("Rejected, and so compared with nothing: 1 by faulty." in told) is bool(failing)
    assert ("No Fréchet distance is compared: each would be of other rows." in told) is bool(failing)


@pytest.mark.usefixtures("prefect_server")
def test_an_unknown_method_is_refused_before_anything_is_written(faces: Path, tmp_path: Path) -> None:
    run = EvaluateRun(source=str(faces), destination=str(tmp_path / "out"), methods=("passthrough", "magic"))
    with pytest.raises(UsageError, match="unknown method 'magic'"):
        evaluate_methods(run)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="each method once"):
        EvaluateRun(source=str(faces), destination="out", methods=("passthrough", "passthrough"))
