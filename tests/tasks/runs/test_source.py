"""What a source is: files, a glob, a finished run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.runs.source import open_source
from tasks.storage.store import FileVersion, Store


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns or {"id": ["a"]}), sink)
    return sink.getvalue().to_pybytes()


def sources(url: str) -> list[str]:
    return [file.path for _, file in open_source(url)]


def test_a_source_is_a_folder_a_glob_or_one_file(url: str) -> None:
    store = Store(url)
    names = ["b.parquet", "a.parquet", "in/c.parquet", "_tmp/d.parquet", ".e.parquet", "in/_f.parquet", "readme.txt"]
    for name in names:
        store.write(name, parquet())
    assert sources(url) == ["a.parquet", "b.parquet", "in/c.parquet"]
    assert sources(f"{url}/*.parquet") == ["a.parquet", "b.parquet"]
    assert sources(f"{url}/i?/*.parquet") == ["in/c.parquet"]
    assert sources(f"{url}/in/c.parquet") == ["c.parquet"]
    [(where, file)] = open_source(f"{url}/in/c.parquet")
    assert file == FileVersion("c.parquet", len(parquet()), store.info("in/c.parquet").version)
    assert pq.ParquetFile(where.open_input(file.path)).read().to_pydict() == {"id": ["a"]}


def test_of_a_finished_run_only_the_data_is_a_source(url: str) -> None:
    store = Store(url)
    for name in ("data/1.parquet", "data/2.parquet", "features/1.parquet", "rejected/1.parquet", "plan/0.parquet"):
        store.write(name, parquet())
    pq.write_table(pa.table({"data": ["data/1.parquet", None]}), manifest := io.BytesIO())
    store.write("manifest.parquet", manifest.getvalue())
    store.write("commits/1.json", b"{}")
    with pytest.raises(UsageError, match="not finished"):
        open_source(url)
    store.write("run.json", b"{}")
    assert sources(url) == ["data/1.parquet"], "the second is of a state that is not finished"
    store.delete("data/1.parquet")
    with pytest.raises(UsageError, match="found one missing"):
        open_source(url)


def test_nothing_found_says_so(url: str) -> None:
    Store(url).write("a.txt", b"")
    for place in (url, f"{url}/none", f"{url}/*.parquet", f"{url}/a.parquet"):
        with pytest.raises(
            UsageError, match=r"expected (\*\.parquet files at .* of that kind|files at .*, found nothing)"
        ):
            open_source(place)


def test_a_folder_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    Store(str(tmp_path / "[2019] scans")).write("a.parquet", parquet())
    assert sources(str(tmp_path / "[2019] scans")) == ["a.parquet"]


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/0.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Apache Hudi"),
        ("metadata/v1.metadata.json", "Apache Iceberg"),
    ],
)
def test_a_table_that_keeps_replaced_rows_is_no_dataset(log: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(parquet())
    assert sources(str(tmp_path)) == ["data/a.parquet"]
    (tmp_path / log).parent.mkdir()
    (tmp_path / log).write_text("{}")
    with pytest.raises(UsageError, match=f"found a table of {kind}, which keeps rows that were replaced"):
        open_source(str(tmp_path))
    assert sources(f"{tmp_path}/data/*.parquet") == ["a.parquet"]
