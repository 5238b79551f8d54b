"""A run over the rows that an assessment selected: those, each once, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.explain_row import explain_row
from tasks.runs.finished_run import open_run
from tasks.verify_run import verify_run
from tests import support

SELECTED = [1, 2, 6, 9, 10]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve rows in three row groups of a file, of which row 9 is broken; four more in a file with ids."""
    rows = support.make_rows(12)
    rows[9]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    named = [row | {"id": f"name-{n}"} for n, row in enumerate(support.make_rows(4, first=20))]
    support.write_parquet(tmp_path / "src" / "b.parquet", named)
    return tmp_path / "src"


def assessment(folder: Path, outcomes: dict[str, str]) -> str:
    """An assessment as far as a selection reads it."""
    table = pa.table({"id": list(outcomes), "outcome": list(outcomes.values()), "severity": [0.1] * len(outcomes)})
    (folder / "assessed" / "assessment").mkdir(parents=True)
    pq.write_table(table, folder / "assessed" / "assessment" / "u.parquet")
    (folder / "assessed" / "assess.json").write_text("{}")
    return str(folder / "assessed")


def all_rows(*changed: str) -> dict[str, str]:
    ids = [f"a.parquet#{n}" for n in range(12)] + [f"name-{n}" for n in range(4)]
    return {row_id: "restored" if row_id in changed else "kept" for row_id in ids}


def run(folder: Path, select: str, **settings: Any) -> dict[str, Any]:
    return support.finished_run(support.make_run(folder, recogniser="none", max_rejects=1.0, select=select, **settings))


def test_the_selected_rows_are_restored_each_once_and_the_others_are_counted(source: Path, tmp_path: Path) -> None:
    chosen = [f"a.parquet#{n}" for n in SELECTED] + ["name-3"]
    select = assessment(tmp_path, all_rows(*chosen))
    record = run(tmp_path, select)
    destination = tmp_path / "dst"
    assert sorted(support.read_ids(destination / "data")) == sorted(set(chosen) - {"a.parquet#9"})
    assert (record["totals"]["rows"], record["totals"]["rejected"]) == (6, 1)
    assert record["selection"]["selected"] == 6 and record["selection"]["left_out"] == 10
    assert any("10 others of the assessment are no part of this run" in warning for warning in record["warnings"])
    support.assert_whole(destination, 6)
    assert verify_run(str(destination))["ok"]
    (rejected,) = pq.read_table(destination / "rejected").to_pylist()
    assert (rejected["id"], rejected["source_row"]) == ("a.parquet#9", 9)
    assert explain_row(str(destination), "a.parquet#10")[0]["state"] == "restored"
    with pytest.raises(UsageError, match="expected a row with the id"):
        explain_row(str(destination), "a.parquet#0")
    found = open_run(str(destination))
    assert dict(zip(found.ids, found.origins(np.arange(5))[1], strict=True)) == {
        "a.parquet#1": 1, "a.parquet#2": 2, "a.parquet#6": 6, "a.parquet#10": 10, "name-3": 3,
    }  # fmt: skip
    before = support.snapshot(destination)
    assert run(tmp_path, select) == record and support.snapshot(destination) == before
    whole = support.make_run(tmp_path, recogniser="none", destination=str(tmp_path / "whole"), max_rejects=1.0)
    support.finished_run(whole)
    of_all = support.restored_images(tmp_path / "whole")
    assert all(of_all[row_id] == data for row_id, data in support.restored_images(destination).items())


def test_rows_that_share_an_id_are_selected_and_counted_together(source: Path, tmp_path: Path) -> None:
    twins = [row | {"id": "name-3"} for row in support.make_rows(2, first=30)]
    support.write_parquet(source / "c.parquet", twins)
    table = pa.table({"id": [*all_rows(), "name-3", "name-3"], "severity": [0.1] * 15 + [0.5, 0.1, 0.1]})
    pq.write_table(table, tmp_path / "mine.parquet")
    record = run(tmp_path, str(tmp_path / "mine.parquet"), select_where="severity > 0.4")
    assert record["totals"]["rows"] == 3
    assert (record["selection"]["selected"], record["selection"]["left_out"]) == (3, 15)


def test_another_selection_needs_another_destination_and_what_is_damaged_is_mended(
    source: Path, tmp_path: Path
) -> None:
    select = assessment(tmp_path, all_rows("a.parquet#1", "a.parquet#6"))
    run(tmp_path, select)
    with pytest.raises(UsageError, match="other settings \\(selection"):
        run(tmp_path, select, select_where="outcome = 'kept'")
    with pytest.raises(UsageError, match="other settings \\(selection"):
        support.finished_run(support.make_run(tmp_path, recogniser="none"))
    broken = next((tmp_path / "dst" / "data").iterdir())
    broken.write_bytes(b"")
    assert not verify_run(str(tmp_path / "dst"))["ok"]
    run(tmp_path, select)
    assert verify_run(str(tmp_path / "dst"))["ok"]
    assert sorted(support.read_ids(tmp_path / "dst" / "data")) == ["a.parquet#1", "a.parquet#6"]


def test_a_condition_or_a_list_of_ids_selects_as_well(source: Path, tmp_path: Path) -> None:
    select = assessment(tmp_path, all_rows("name-0"))
    run(tmp_path, select, select_where="outcome = 'kept' and id like 'name-%'", destination=str(tmp_path / "1"))
    assert sorted(support.read_ids(tmp_path / "1" / "data")) == ["name-1", "name-2", "name-3"]
    ids = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"id": ["a.parquet#3", "name-2"]}), ids)
    run(tmp_path, str(ids), destination=str(tmp_path / "2"))
    assert sorted(support.read_ids(tmp_path / "2" / "data")) == ["a.parquet#3", "name-2"]


def test_a_selection_that_cannot_be_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    select = assessment(tmp_path, all_rows())
    with pytest.raises(UsageError, match="found none among 16; nothing to restore"):
        run(tmp_path, select)
    with pytest.raises(UsageError, match="expected a condition over the columns"):
        run(tmp_path, select, select_where="decade = 1900")
    (tmp_path / "assessed" / "assess.json").unlink()
    with pytest.raises(UsageError, match="expected a finished assessment"):
        run(tmp_path, select)
    strangers = tmp_path / "strangers.parquet"
    pq.write_table(pa.table({"id": ["nobody"]}), strangers)
    with pytest.raises(UsageError, match="found none of the 1 ids there"):
        run(tmp_path, str(strangers))
    assert not (tmp_path / "dst" / "plan").exists()
