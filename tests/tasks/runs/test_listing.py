"""What a source must hold is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tests import support


def test_a_wrong_column_is_answered_with_the_columns_there_are(source: Path) -> None:
    with pytest.raises(UsageError, match=r"image column 'picture', found the columns image \(struct.*--column"):
        support.plan_run(support.make_run(source.parent, column="picture"))
    assert not (source.parent / "dst").exists()


def test_a_file_without_the_column_is_found_before_any_work(source: Path) -> None:
    pq.write_table(pq.read_table(source / "b.parquet").rename_columns(["other"]), source / "z.parquet")
    with pytest.raises(UsageError, match="image column 'image', found the columns other"):
        support.plan_run(support.make_run(source.parent))


def test_a_file_that_is_no_parquet_is_named(source: Path) -> None:
    (source / "z.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match=r"expected a Parquet file at .*z\.parquet"):
        support.plan_run(support.make_run(source.parent))


def test_a_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(support.write_parquet(tmp_path / "one.parquet", support.make_rows(1)))
    (tmp_path / "src").mkdir()
    pq.write_table(table.slice(0, 0), tmp_path / "src" / "a.parquet")
    with pytest.raises(UsageError, match="expected rows in"):
        support.plan_run(support.make_run(tmp_path))
