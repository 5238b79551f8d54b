"""What only a file's path says is a column of its rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.datasets.folder_columns import folder_columns, with_folder_columns
from tasks.datasets.image_column import find_image_column
from tasks.degrade_dataset import DegradeRun, degrade_dataset
from tasks.pack_pictures import pack_pictures
from tests import support


@pytest.mark.parametrize(("name", "columns"), [
    ("a.parquet", {}),
    ("year=1923/a.parquet", {"year": "1923"}),
    ("x/year=1923/y/place=K%C3%B6ln/a=b.parquet", {"year": "1923", "place": "Köln"}),
    ("a=b=c/d=/e.parquet", {"a": "b=c", "d": ""}),
    ("year=__HIVE_DEFAULT_PARTITION__/a.parquet", {"year": None}),
    ("=1/a.parquet", {}),
])  # fmt: skip
def test_steps_with_an_equals_sign_are_columns(name: str, columns: dict[str, str | None]) -> None:
    assert folder_columns(name) == columns
    table = with_folder_columns(pa.table({"n": [1, 2]}), name)
    assert table.drop_columns(["n"]).to_pylist() == [columns] * 2
    assert all(field.type == pa.string() for field in table.schema if field.name != "n")


def test_a_column_of_the_file_itself_stays() -> None:
    assert with_folder_columns(pa.table({"year": [5]}), "year=1923/a.parquet").to_pylist() == [{"year": 5}]


def test_they_are_in_what_is_packed_degraded_and_restored(tmp_path: Path) -> None:
    for number, place in enumerate(("year=1923/place=K%C3%B6ln", "year=1924/place=__HIVE_DEFAULT_PARTITION__")):
        support.write_parquet(tmp_path / "src" / place / "a.parquet", support.make_rows(2, 2 * number))
    expected = [("1923", "Köln")] * 2 + [("1924", None)] * 2
    support.finished_run(support.make_run(tmp_path))
    pack_pictures(str(tmp_path / "src"), str(tmp_path / "packed"))
    settings = {"preset": "gfpgan", "size": 32, "column": "image"}
    degrade_dataset(DegradeRun(source=str(tmp_path / "src"), destination=str(tmp_path / "degraded"), **settings))
    for folder in ("dst/data", "packed", "degraded"):
        files = sorted((tmp_path / folder).glob("*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert sorted(((r["year"], r["place"]) for r in rows), key=str) == sorted(expected, key=str), folder


def test_columns_of_the_same_name_are_refused_by_their_names() -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64()), ("label", pa.string()), ("n", pa.int64())])
    with pytest.raises(UsageError, match="expected columns of different names, found several named 'label'"):
        find_image_column(schema)
