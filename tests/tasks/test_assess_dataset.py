"""`bfr assess`: every picture is a row, whatever it is, and nothing is looked at twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from bfr_models.errors import UsageError
from bfr_models.judge.decision import JUDGE, KINDS
from bfr_models.judge.network import JudgeNetwork
from bfr_models.registry import resolve_method
from bfr_models.weights.files import ASSETS
from bfr_models.weights.tensors import parameters_of, save_weights
from flows.cli.app import app
from tasks.assess_dataset import assess_dataset
from tasks.config.assess import AssessRun
from tasks.config.resolve import resolve_run
from tasks.estimate_run import estimate_run
from tests import support
from tests.real_photos import photo
from tests.tasks.report.test_run_report import Page

pytest.importorskip("dlib")


class Line:
    """Progress that is counted."""

    def __init__(self) -> None:
        self.rows = 0

    def advance(self, rows: int) -> None:
        self.rows += rows

    @contextmanager
    def __call__(self, label: str, total: int, done: int) -> Iterator[Line]:
        self.total, self.done = total, done
        yield self


def assess(folder: Path, **settings: Any) -> tuple[dict[str, Any], Line]:
    asked = {"source": str(folder / "src"), "destination": str(folder / "assessed"), "method": "estimator", **settings}
    line = Line()
    return assess_dataset(AssessRun(**asked), line), line


def test_files_are_not_packed_into_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(support.encoded(support.portrait(0)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    result = CliRunner().invoke(app, ["assess", str(tmp_path / "photos"), str(tmp_path / "mine")])
    assert result.exit_code == 2 and "expected an empty folder" in result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_assessment_that_was_moved_goes_on_where_it_is(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    first, _ = assess(tmp_path)
    (tmp_path / "assessed").rename(tmp_path / "moved")
    assert assess(tmp_path, destination=str(tmp_path / "moved"))[0] == first
    with pytest.raises(UsageError, match=r"assessment with other settings \(arguments.seed: expected 0, found 1\)"):
        assess(tmp_path, destination=str(tmp_path / "moved"), seed=1)


def test_files_are_packed_into_the_assessment_once(tmp_path: Path) -> None:
    """And a restore of the same files takes what it selects: both name them alike."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").write_bytes(support.encoded(support.portrait(number)))
    words = ["assess", str(tmp_path / "photos"), str(tmp_path / "assessed"), "--method", "estimator"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0 and "packed 2 images" in first.stderr, first.output
    assert [row["id"] for row in rows_of(tmp_path)] == ["0.png", "1.png"]
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and "nothing to do: " in again.stderr
    (tmp_path / "photos" / "2.png").write_bytes(support.encoded(support.portrait(2)))
    more = CliRunner().invoke(app, words)
    assert more.exit_code == 0 and "packed 1 images" in more.stderr
    assert {row["id"] for row in rows_of(tmp_path)} == {"0.png", "1.png", "2.png"}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found = pq.read_table(folder / "assessed" / "assessment").to_pylist()
    return sorted(found, key=lambda row: (row["source_file"], row["source_row"]))


def untrained_judge(folder: Path) -> None:
    torch.manual_seed(0)
    networks = {weight["file"]: weight["sha256"] for weight in resolve_method("estimator").weights.values()}
    facts = {
        "networks": networks,
        "harm_curve": {kind: [[0.01, 0.01], [0.6, 0.5]] for kind in KINDS},
        "calibration": {kind: [[0, 0], [1, 1]] for kind in KINDS},
    }
    save_weights(parameters_of(JudgeNetwork()), facts, folder / f"{JUDGE}.safetensors")


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Six rows in two files: two photos, a copy of one, a tiny face, one without a face, one broken."""
    folder = tmp_path_factory.mktemp("assess")
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    pictures = {
        "a": support.encoded(photo(0)),
        "b": support.encoded(photo(1)),
        "copy": support.encoded(photo(0), "jpeg", quality=60),
        "tiny": support.encoded(photo(1, 120)),
        "noise": support.encoded(noise),
        "broken": b"no picture",
    }
    rows = [{"id": name, "image": {"bytes": data, "path": None}} for name, data in pictures.items()]
    support.write_parquet(folder / "src" / "a.parquet", rows[:4], group_rows=2)
    support.write_parquet(folder / "src" / "b.parquet", rows[4:])
    with pytest.MonkeyPatch.context() as patch:
        if not (ASSETS / f"{JUDGE}.json").exists():
            patch.setenv("BFR_WEIGHTS", str(folder / "weights"))
            untrained_judge(folder / "weights")
        record, _ = assess(folder, shard_rows=2, min_face=64)
        yield folder, record


def test_every_picture_is_a_row_with_its_faces_or_a_reason(assessed: tuple[Path, dict[str, Any]]) -> None:
    folder, record = assessed
    rows = {row["id"]: row for row in rows_of(folder)}
    assert list(rows) == ["a", "b", "copy", "tiny", "noise", "broken"]
    assert {"a", "b", "copy"} == {
        name for name, row in rows.items() if row["faces"] and row["faces"][0]["gain"] is not None
    }
    (face,) = rows["a"]["faces"]
    assert 0 <= face["severity"] <= 1 and 0 <= face["harm"] <= 1 and face["grain"] >= 0
    assert face["side"] == pytest.approx(rows["copy"]["faces"][0]["side"], rel=0.1)
    assert rows["a"]["width"], rows["a"]["height"] == photo(0).shape[1::-1]
    assert rows["tiny"]["outcome"] == "too_small" and rows["tiny"]["faces"][0]["side"] < 64
    assert (rows["noise"]["outcome"], rows["noise"]["faces_found"]) == ("none_found", 0)
    assert (rows["broken"]["outcome"], rows["broken"]["error"]) == ("rejected", "undecodable")
    assert sum(record["outcomes"].values()) == record["counts"]["pictures"] == record["rows_in_source"] == 6


def test_the_record_names_the_judge_and_the_page_needs_no_network(assessed: tuple[Path, dict[str, Any]]) -> None:
    folder, record = assessed
    assert json.loads((folder / "assessed" / "assess.json").read_text()) == record
    assert record["input"] == "photos" and "is taken for photos" in record["took_it_for"]
    assert len(record["judge"]["sha256"]) == 64 and record["errors"] == {"undecodable": 1}
    assert record["estimate"]["seconds_per_face"] > 0
    assert record["counts"]["duplicates"] == {"pictures": 2, "groups": 2}
    copies = pq.read_table(folder / "assessed" / "duplicates.parquet").to_pylist()
    assert [(row["id"], row["duplicate_of"]) for row in copies] == [("copy", "a"), ("tiny", "b")]
    page = (folder / "assessed" / "report" / "index.html").read_text()
    assert "6 pictures, 4 faces" in page and page.count("data:image/webp") >= 5
    Page(page)  # every tag is closed
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_it_goes_on_where_it_was_stopped_and_a_finished_one_is_a_no_op(assessed: tuple[Path, dict[str, Any]]) -> None:
    folder, record = assessed
    before, rows = support.snapshot(folder / "assessed"), rows_of(folder)
    again, line = assess(folder, shard_rows=2, min_face=64)
    assert again == record and line.rows == 0 and support.snapshot(folder / "assessed") == before
    done, _ = (path for path in sorted((folder / "assessed" / "assessment").iterdir()))
    lost = pq.read_table(done).num_rows
    done.unlink()
    (folder / "assessed" / "assess.json").rename(folder / "assessed" / "assess.unfinished.json")
    again, line = assess(folder, shard_rows=2, min_face=64)
    assert (line.rows, line.total, line.done) == (lost, 6, 6 - lost)
    assert rows_of(folder) == rows and again["outcomes"] == record["outcomes"]


def test_a_plan_counts_what_the_assessment_found(assessed: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = assessed
    run = support.make_run(
        folder, "estimator", recogniser="none", input="photos", destination=str(folder / "planned"),
        select=str(folder / "assessed"), select_where="outcome != 'rejected'",
    )  # fmt: skip
    found = estimate_run(resolve_run(run))
    rows = [row for row in rows_of(folder) if row["outcome"] != "rejected"]
    assert found["rows_to_do"] == len(rows) == 5
    assert found["assessed"]["faces"] == sum(row["faces_found"] for row in rows) > 0
    assert found["assessed"]["outcomes"] == dict(Counter(row["outcome"] for row in rows))


def test_other_settings_and_other_folders_are_refused(assessed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = assessed
    with pytest.raises(UsageError, match=r"settings \(arguments\.min_face: expected 64, found 50\)"):
        assess(folder, shard_rows=2, min_face=50)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="expected an empty folder"):
        assess(folder, destination=str(tmp_path))


def test_a_sample_of_aligned_faces_and_what_no_judge_knows(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(40), group_rows=4)
    record, line = assess(tmp_path, method="passthrough", sample=8, shard_rows=4)
    assert line.rows == line.total == 8 and record["rows_in_source"] == 40 and record["input"] == "faces"
    assert record["outcomes"] == {"not_judged": 8} and record["judge"] is None
    assert {row["id"] for row in rows_of(tmp_path)} <= {f"a.parquet#{n}" for n in range(40)}
    assert "No judge knows" in (tmp_path / "assessed" / "report" / "index.html").read_text()
