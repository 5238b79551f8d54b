"""A curated dataset: each row of the run is in it or in `dropped.parquet`, and its statistics are those of its rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.config.curate import CurateRun
from tasks.curate_run import curate_run
from tasks.datasets.image_column import IMAGE
from tasks.runs.source import open_source
from tests import support
from tests.tasks.curation.curated import curated, dropped, run_rows


def test_every_row_is_kept_or_dropped_for_a_reason_and_says_where_it_is_from(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(hostile_run, tmp_path, where="who = 'a'", top_k=5, by="n")
    assert [row["n"] for row in rows] == [11, 13, 14, 16, 17]  # the highest, in the order of the run
    assert record["counts"] == {"rows": 17, "kept": 5, "dropped": 12}
    assert [(step["step"], step["left"]) for step in record["steps"]] == [
        ("rows of the run", 17), ("who = 'a'", 12), ("not of the 5 highest n", 5),
    ]  # fmt: skip
    reasons = [row["reason"] for row in dropped(tmp_path)]
    assert (reasons.count("who = 'a'"), reasons.count("not of the 5 highest n")) == (5, 7)
    places = {(row["source_file"], row["source_row"]) for row in rows + dropped(tmp_path)}
    assert len(places) == 17
    for row in rows:
        there = pq.read_table(hostile_run / row["source_file"]).to_pylist()[row["source_row"]]
        assert row["source_run"] == str(hostile_run)
        assert row["source_source_file"] == f"scan-{row['n']}"  # the input's own column has moved aside
        assert all(row[name] == value for name, value in there.items() if name != "source_file")


def test_a_column_of_the_source_that_differs_in_case_alone_moves_aside(tmp_path: Path) -> None:
    support.write_parquet(
        tmp_path / "src" / "a.parquet", [row | {"Width": n} for n, row in enumerate(support.make_rows(4))]
    )
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    _, rows = curated(tmp_path / "dst", tmp_path, where="width > 3 and source_width < 2")
    assert [(row["width"] > 3, row["source_Width"]) for row in rows] == [(True, 0), (True, 1)]


def test_every_row_says_which_row_of_the_source_it_was_restored_from(hostile_run: Path, tmp_path: Path) -> None:
    """Also after row 3, which was rejected."""
    file = hostile_run.parent / "src" / "a.parquet"
    inputs = pq.read_table(file)["n"].to_pylist()
    _, rows = curated(hostile_run, tmp_path, where="n % 2 = 0")
    assert {row["origin_file"] for row in rows + dropped(tmp_path)} == {str(file)}
    assert [inputs[row["origin_row"]] for row in rows] == [row["n"] for row in rows] == list(range(0, 18, 2))
    assert [row["origin_row"] for row in dropped(tmp_path)] == [n for n in range(1, 18, 2) if n != 3]


def test_it_is_a_dataset_like_any_other(hostile_run: Path, tmp_path: Path) -> None:
    curated(hostile_run, tmp_path, top_k=9, by="n", ascending=True)
    (found,) = open_source(str(tmp_path / "out"))
    assert found[1].path == "data/part-00000.parquet"
    schema = pq.read_schema(tmp_path / "out" / "data" / "part-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["restored"] == {"_type": "Image"} and schema.field("restored").type == IMAGE
    again = support.make_run(tmp_path, source=str(tmp_path / "out"), column="restored", recogniser="none")
    support.finished_run(again)
    assert len(run_rows(tmp_path / "dst")) == 9


def test_the_same_curation_is_a_no_op_and_another_one_is_refused(hostile_run: Path, tmp_path: Path) -> None:
    first, _ = curated(hostile_run, tmp_path, where="n > 3")
    before = support.snapshot(tmp_path / "out")
    again, _ = curated(hostile_run, tmp_path, where="n > 3")
    assert again == first and support.snapshot(tmp_path / "out") == before
    with pytest.raises(UsageError, match="found another"):
        curated(hostile_run, tmp_path, where="n > 4")
    assert support.snapshot(tmp_path / "out") == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"expected an empty folder.*notes\.txt"):
        curate_run(CurateRun(source=str(hostile_run), destination=str(tmp_path / "full")))


def test_an_interrupted_curation_is_no_dataset_and_is_done_again(
    hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.scoring.subset_statistics.subset_statistics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        curated(hostile_run, tmp_path, where="n > 3")
    monkeypatch.undo()
    assert (tmp_path / "out" / "data" / "part-00000.parquet").exists()
    with pytest.raises(UsageError, match="has not finished"):
        open_source(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="found another"):
        curated(hostile_run, tmp_path, where="n > 4")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "data" / "part-00009.parquet").write_bytes(b"left behind")
    _, rows = curated(hostile_run, tmp_path, where="n > 3")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert len(rows) == 14 and not (tmp_path / "out" / "curation.unfinished.json").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"where": "identity > 0"}, "columns who, n, .*identity_similarity.*found 'identity > 0'"),
        ({"where": "n in (select 1)"}, "own columns"),
        ({"where": "n > 100"}, "found none: rows of the run: 17 left; n > 100: 0 left"),
        ({"by": "who", "top_k": 1}, "sort by, found 'who'; known: n, "),
        ({"by": "lpips", "top_k": 1}, "expected values in the column 'lpips'.* one that has: n, .*psnr"),
        ({"top_k": 2}, "expected values in the column 'identity_similarity'.* one that has: n, .*psnr"),
        ({"dedupe": 0.9}, "expected values in the column 'identity_similarity'.* one that has: n, .*psnr"),
        ({"stratify": "psnr"}, "stratify by, found 'psnr'; known: who, n, "),
        ({"profile": "best"}, "unknown profile 'best'; known: archive, training-set"),
        ({"profile": "archive"}, "scored by .* found no recogniser"),
        ({"dedupe": 0.9, "by": "n", "dedupe_by": "embedding"}, "keep-embeddings"),
        ({"dedupe": 0.9, "by": "n", "dedupe_by": "inception"}, "Inception"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    hostile_run: Path, tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        curated(hostile_run, tmp_path, **asked)
    assert not (tmp_path / "out").exists()


def pointing(hostile_run: Path, tmp_path: Path, current: str | None) -> Path:
    """What `bfr reprocess` leaves, with the run as its first generation."""
    shutil.copytree(hostile_run, tmp_path / "all" / "generations" / "0001")
    names = {"previous": [], "begun": ["0001"], "rolled_back": [], "expired": []}
    (tmp_path / "all" / "current.json").write_text(json.dumps({"generation": current, "source": "/src", **names}))
    return tmp_path / "all"


def test_of_generations_the_current_one_is_curated(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(pointing(hostile_run, tmp_path, "0001"), tmp_path, where="n > 3")
    assert len(rows) == 14
    there = str(tmp_path / "all" / "generations" / "0001")
    assert {row["source_run"] for row in rows} == {record["run"]["source"]} == {there}


def test_generations_of_which_none_is_current_are_refused(hostile_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a current generation"):
        curated(pointing(hostile_run, tmp_path, None), tmp_path)


def test_an_unfinished_run_is_refused(hostile_run: Path, tmp_path: Path) -> None:
    for part in ("plan", "commits"):
        for path in (hostile_run / part).iterdir():
            (tmp_path / "run" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / part / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"finished run.*run the `bfr restore` command"):
        curated(tmp_path / "run", tmp_path)
    with pytest.raises(UsageError, match="expected a run"):
        curated(tmp_path / "nothing", tmp_path)
