"""The demo's photograph is damaged so that its face gains: else the report would open with nothing to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tasks.config.restore import RestoreRun
from tasks.export_run import export_run
from tasks.make_demo_faces import make_demo_photo
from tasks.pack_pictures import files_of_run
from tests import support


@pytest.mark.slow
def test_the_photograph_of_the_demo_is_restored_and_comes_back_as_a_file(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    make_demo_photo(str(tmp_path / "scans"))
    files = files_of_run(str(tmp_path / "scans"), str(tmp_path / "photos"))
    assert files is not None
    files.pack()
    run = RestoreRun(
        source=files.url, destination=str(tmp_path / "photos"), method="difface", input="photos", engine="local"
    )
    record = support.finished_run(run)
    assert record["outcomes"] == {"restored": 1} and record["totals"]["changed"] == 1
    assert 'id="photo"' in (tmp_path / "photos" / "report" / "index.html").read_text()
    export_run(run.destination, str(tmp_path / "files"))
    before, after = (Image.open(tmp_path / folder / "eileen_collins.jpg") for folder in ("scans", "files"))
    assert before.size == after.size and before.info["dpi"] == after.info["dpi"]
    make_demo_photo(str(tmp_path / "scans"))  # a second demo has nothing to do
    again = files_of_run(str(tmp_path / "scans"), str(tmp_path / "photos"))
    assert again is not None and not again.todo
