"""The card of a curated dataset: which files it has, how its rows were chosen, and under which licences."""

from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from tests import support
from tests.tasks.curation.curated import curated, curated_files


@pytest.mark.parametrize("form", ["parquet", "webdataset", "folder"])
def test_the_card_names_the_files_of_the_dataset_alone(form: str, hostile_run: Path, tmp_path: Path) -> None:
    """As `load_dataset` reads it."""
    curated_files(hostile_run, tmp_path, form)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    ((name, pattern),) = ((one["config_name"], one["data_files"]) for one in card.data.to_dict()["configs"])
    found = {path for path in (tmp_path / "out").glob(pattern) if path.is_file()}
    assert name == "default" and found == {path for path in (tmp_path / "out" / "data").rglob("*") if path.is_file()}


def test_the_card_says_how_many_rows_there_are_how_they_came_and_under_which_licences(tmp_path: Path) -> None:
    licences = ["CC BY 4.0", "CC BY 4.0", None, "`<b>own</b>`\n# x"]
    rows = [row | {"n": i, "License": licences[i]} for i, row in enumerate(support.make_rows(4))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    curated(tmp_path / "dst", tmp_path, where="n > 0")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "3 of the 4 rows that the method `passthrough` restored" in text and f"from `{tmp_path}/dst`" in text
    assert "- where: `n > 0`" in text and "1. `n > 0`: 1 dropped, 3 left" in text
    lines = {line for line in text.splitlines() if "`License`" in line}
    values = ("`CC BY 4.0`", "`None`", "`<b>own</b> # x`")
    assert lines == {f"- column `License`, 1 rows: {value}" for value in values}
