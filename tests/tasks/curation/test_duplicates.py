"""Near-duplicates of a run: what they are found by, and which of them is kept."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.tasks.curation.curated import HOSTILE, curated, dropped, with_features


def test_near_duplicates_are_found_by_the_features_of_the_run(hostile_run: Path, tmp_path: Path) -> None:
    run, _, _ = with_features(hostile_run, tmp_path / "run")
    record, _ = curated(run, tmp_path, dedupe=0.999, by="n", ascending=True)
    assert record["dedupe"]["look"] == "inception" and record["dedupe"]["dropped"] == 1
    (gone,) = dropped(tmp_path)
    assert gone["reason"] == "near-duplicate" and gone["similarity"] == pytest.approx(1)
    place = pq.read_table(run / gone["kept_file"]).to_pylist()[gone["kept_row"]]
    assert (place["id"], place["n"]) == (gone["kept_id"], 6)


def test_of_a_group_of_near_duplicates_the_best_is_kept(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(hostile_run, tmp_path, dedupe=0.9999, by="n")
    assert record["dedupe"]["look"] == "perceptual" and record["dedupe"]["name"] == "luma32-dct63"
    kept = [row["n"] for row in rows]
    assert 6 in kept and 4 not in kept and 5 not in kept
    gone = [row for row in dropped(tmp_path) if row["reason"] == "near-duplicate"]
    assert len(gone) == record["dedupe"]["dropped"] == 17 - len(rows)
    assert {row["kept_id"] for row in gone if row["id"] in (HOSTILE[4], HOSTILE[5])} == {HOSTILE[6]}
