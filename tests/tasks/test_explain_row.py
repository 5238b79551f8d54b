"""What `bfr explain` says about one row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bfr_models.errors import UsageError
from bfr_models.rng import derive_seed
from tasks.explain_row import explain_row
from tasks.runs.outcomes import row_words
from tests import support


def test_a_restored_row_is_told_with_what_made_it_and_without_its_pixels(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "in" / "a.parquet", support.make_rows(12))
    support.finished_run(support.make_run(tmp_path, seed=7))
    (row,) = explain_row(str(tmp_path / "dst"), "in/a.parquet#6")
    commit = next(c for c in support.read_commits(tmp_path / "dst") if c["shard"] == row["shard"])
    assert (row["state"], row["seed"]) == ("restored", derive_seed(7, "in/a.parquet#6"))
    assert (row["attempt"], row["process"]) == (commit["attempt"], commit["process"])
    assert row["source_rows"] == [4, 8] and row["source"].endswith("in/a.parquet")
    assert row["file"] == commit["files"]["data"]["path"]
    assert "restored" not in row and not any(isinstance(value, bytes) for value in row.values())


def test_columns_of_the_input_that_are_called_as_what_is_told_are_told_as_well(tmp_path: Path) -> None:
    own = {"source": "Library of Congress", "process": "albumen", "state": "Ohio", "became": "mayor"}
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1, **own))
    support.finished_run(support.make_run(tmp_path))
    (row,) = explain_row(str(tmp_path / "dst"), "a.parquet#0")
    assert {name: row[f"source_{name}"] for name in own} == own
    assert row["source"].endswith("a.parquet") and row["state"] == "restored"


@pytest.mark.parametrize(
    ("outcomes", "enlarged", "said"),
    [
        ([], False, "kept as it was (no face found)"),
        ([], True, "only enlarged (no face found)"),
        (["kept_original: no gain expected"], False, "kept as it was (1 face: kept_original)"),
        (["restored", "corrected", "restored"], True, "restored (3 faces: 2 restored, 1 corrected)"),
        (["skipped: too small", "skipped: over the cap"], False, "kept as it was (2 faces: skipped)"),
    ],
)
def test_what_became_of_a_row_goes_by_its_faces(outcomes: list[str], enlarged: bool, said: str) -> None:
    assert row_words([{"outcome": outcome} for outcome in outcomes], enlarged=enlarged) == said


def test_an_id_that_reads_like_a_place_may_be_another_rows_own(tmp_path: Path) -> None:
    ids = [f"a.parquet#{number}" for number in range(11, -1, -1)]
    rows = [row | {"id": row_id} for row_id, row in zip(ids, support.make_rows(12), strict=True)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path))
    (row,) = explain_row(str(tmp_path / "dst"), "a.parquet#11")
    assert (row["id"], row["source_rows"]) == ("a.parquet#11", [0, 4])


def test_a_photo_without_a_face_is_not_called_restored(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": support.encoded(np.full((96, 96, 3), 128, np.uint8)), "path": None}}]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, input="photos", recogniser="none"))
    (row,) = explain_row(str(tmp_path / "dst"), "a.parquet#0")
    assert (row["state"], row["became"]) == ("restored", "kept as it was (no face found)")


def test_a_rejected_row_is_told_with_the_reason(tmp_path: Path) -> None:
    rows = support.make_rows(8)
    rows[5]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path))
    (row,) = explain_row(str(tmp_path / "dst"), "a.parquet#5")
    assert (row["state"], row["error"], row["source_row"]) == ("rejected", "undecodable", 5)
    assert row["became"] == "rejected: undecodable"


def test_all_rows_of_an_id_are_told_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    rows = [row | {"id": "<b>#1" if i % 4 == 0 else str(i)} for i, row in enumerate(support.make_rows(12))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path))
    assert len({row["shard"] for row in explain_row(str(tmp_path / "dst"), "<b>#1")}) == 3
    with pytest.raises(UsageError, match="expected a row with the id 'nobody'"):
        explain_row(str(tmp_path / "dst"), "nobody")
