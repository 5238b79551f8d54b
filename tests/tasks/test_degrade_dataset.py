"""From clean faces to pairs: which row gets which degradation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import GRIDS
from bfr_models.errors import UsageError
from bfr_models.rng import derive_seed
from tasks import degrade_dataset as module
from tasks.config.degrade import DegradeRun
from tasks.degrade_dataset import degrade_dataset
from tasks.pack_pictures import pack_pictures
from tests import support


@pytest.mark.parametrize("batch_rows", [2, 64])
def test_a_grids_cells_go_by_the_rows_of_the_dataset(
    batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over files and batches, in their order; a row that is skipped keeps its cell."""
    monkeypatch.setattr(module, "BATCH_ROWS", batch_rows)
    rows = support.make_rows(8)
    rows[1]["image"]["bytes"] = b"no picture"
    support.write_parquet(tmp_path / "src" / "b.parquet", rows[5:])
    support.write_parquet(tmp_path / "src" / "a.parquet", rows[:5])
    run = DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / "dst"), preset="difface_test", seed=3)
    assert degrade_dataset(run).rows == 7
    pairs = pq.read_table(tmp_path / "dst").to_pylist()
    for row, pair in zip([0, 2, 3, 4, 5, 6, 7], pairs, strict=True):
        gt, cell = support.portrait(row), GRIDS["difface_test"].cells[row]
        assert np.array_equal(support.decoded(pair["gt"]["bytes"]), gt)
        expected = degrade(gt, cell, derive_seed(3, pair["id"]))
        assert np.array_equal(support.decoded(pair["image"]["bytes"]), expected)


def test_an_unknown_preset_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    with pytest.raises(UsageError, match=r"unknown degradation preset 'grid'; known: .*difface_test"):
        degrade_dataset(DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / "dst"), preset="grid"))
    assert not (tmp_path / "dst").exists()


def test_pairs_of_other_settings_are_replaced_only_when_asked(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    run = DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / "dst"), size=32)
    for _ in range(2):  # the same again is the same
        degrade_dataset(run)
    before = support.snapshot(tmp_path / "dst")
    for other in ({"seed": 1}, {"source": str(tmp_path / "src" / "a.parquet")}):
        with pytest.raises(UsageError, match="--overwrite"):
            degrade_dataset(run.model_copy(update=other))
    assert support.snapshot(tmp_path / "dst") == before
    degrade_dataset(run.model_copy(update={"seed": 1, "overwrite": True}))
    assert support.snapshot(tmp_path / "dst") != before


@pytest.mark.parametrize("folder", ["src", "src/pairs"])
def test_pairs_do_not_take_the_place_of_the_faces_that_they_are_made_of(folder: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "part-00000.parquet", support.make_rows(1))
    before = support.snapshot(tmp_path)
    run = DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / folder), overwrite=True)
    with pytest.raises(UsageError, match="expected a destination outside"):
        degrade_dataset(run)
    assert support.snapshot(tmp_path) == before


@pytest.mark.parametrize("files", ["part-00000.parquet", "part-*.parquet"])
def test_nor_of_the_one_file_that_they_are_made_of(files: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "part-00000.parquet", support.make_rows(1))
    before, source, destination = support.snapshot(tmp_path), str(tmp_path / "src" / files), str(tmp_path / "src")
    for make in (
        lambda: degrade_dataset(DegradeRun(source=source, destination=destination, overwrite=True)),
        lambda: pack_pictures(source, destination, overwrite=True),
    ):
        with pytest.raises(
            UsageError, match=r"expected a source outside \S+/src, found \S+/src/part-.*; use another DST"
        ):
            make()
    assert support.snapshot(tmp_path) == before


def test_a_source_without_a_usable_face_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    rows = support.make_rows(2)
    rows[0]["image"]["bytes"] = b"no picture"
    rows[1]["image"]["bytes"] = support.encoded(support.portrait(1)[:50])
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / "dst"))
    with pytest.raises(
        UsageError, match=r"expected square faces .*none in 2 rows; a\.parquet#0: undecodable.*not_square"
    ):
        degrade_dataset(run)
    assert not list((tmp_path / "dst").glob("*"))
