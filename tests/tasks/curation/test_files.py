"""The files of a curated dataset, whatever their rows are called."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.curation.files import open_files, safe_name
from tasks.datasets.image_column import IMAGE
from tasks.storage.store import Store
from tests import support
from tests.tasks.curation.curated import HOSTILE, curated_files, run_rows


def test_webdataset_has_a_key_for_each_row_whatever_its_id(hostile_run: Path, tmp_path: Path) -> None:
    curated_files(hostile_run, tmp_path, "webdataset")
    with tarfile.open(tmp_path / "out" / "data" / "part-00000.tar") as archive:
        names = archive.getnames()
        texts = [json.load(archive.extractfile(name)) for name in names if name.endswith(".json")]  # type: ignore[arg-type]
        samples = {name.partition(".")[0]: archive.extractfile(name).read() for name in names if name.endswith("x.png")}  # type: ignore[union-attr]
    assert len(names) == len(set(names)) == 3 * 17  # restored, gt, text
    assert len({name.partition(".")[0] for name in names}) == 17
    assert all("/" not in name and ".." not in name and name.isascii() for name in names)
    by_number = {row["n"]: row for row in run_rows(hostile_run)}
    assert [text["id"] for text in texts] == [row["id"] for row in by_number.values()]
    assert samples["00000000-x"] == by_number[0]["restored"]["bytes"]


def test_a_folder_stays_inside_itself(hostile_run: Path, tmp_path: Path) -> None:
    curated_files(hostile_run, tmp_path, "folder", top_k=17, by="n")
    folder = tmp_path / "out" / "data" / "00000"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = run_rows(hostile_run)
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert (folder / line["file_name"]).read_bytes() == row["restored"]["bytes"]
        assert (folder / line["gt_file_name"]).read_bytes() == row["gt"]["bytes"]
    assert {path.parent for path in tmp_path.rglob("*.png")} == {folder}


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_columns_of_pictures_have_files_of_their_own(form: str, tmp_path: Path) -> None:
    columns = ["photograph_front_side_scan", "photograph_front_side_mask", "Gt", "gt"]
    pictures = {name: support.encoded(support.portrait(i)) for i, name in enumerate(columns, 1)}
    rows = support.make_rows(1, **{name: {"bytes": data, "path": None} for name, data in pictures.items()})
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    curated_files(tmp_path / "dst", tmp_path, form)
    folder = tmp_path / "out" / "data"
    if form == "folder":
        line = json.loads((folder / "00000" / "metadata.jsonl").read_text())
        found = {name: (folder / "00000" / line[f"{name}_file_name"]).read_bytes() for name in columns}
    else:
        with tarfile.open(folder / "part-00000.tar") as archive:
            members = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
        words = ("photograph_front_sid", "photograph_front_sid_2", "gt", "gt_2")
        (key,) = {name.partition(".")[0] for name in members}
        found = {name: members[f"{key}.{word}.png"] for name, word in zip(columns, words, strict=True)}
    assert found == pictures


@pytest.mark.parametrize("row_id", HOSTILE)
def test_a_safe_name_has_nothing_but_plain_letters(row_id: str) -> None:
    name = safe_name(7, row_id)
    assert name.startswith("00000007") and len(name) <= 70
    assert all((letter.isalnum() and letter.isascii()) or letter in "_-" for letter in name)


def test_a_column_that_is_called_as_a_folder_calls_its_own_stays(tmp_path: Path) -> None:
    image = {"bytes": support.encoded(support.portrait(1)), "path": None}
    columns = {
        "id": ["a", "b"],
        "file_name": ["1931/x.jpg", "1931/y.jpg"],
        "restored": [image, image],
        "gt": [image, None],
    }
    kinds = {"id": pa.string(), "file_name": pa.string(), "restored": IMAGE, "gt": IMAGE}
    table = pa.Table.from_pydict(columns, pa.schema(list(kinds.items())))
    with open_files("folder", Store(str(tmp_path)), table.schema) as files:
        files.write(table)
    text = (tmp_path / "data" / "00000" / "metadata.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["file_name"] for line in lines] == ["00000000-a.png", "00000001-b.png"]
    assert [line["source_file_name"] for line in lines] == columns["file_name"]
