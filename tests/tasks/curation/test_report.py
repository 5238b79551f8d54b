"""The page of a curation."""

from pathlib import Path

from tests.tasks.curation.curated import curated


def test_the_page_escapes_what_rows_bring(hostile_run: Path, tmp_path: Path) -> None:
    curated(hostile_run, tmp_path, dedupe=0.9999, by="n", where="who != '<script>alert(2)</script>'")
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "&lt;script&gt;alert(2)" in page
    assert "http://" not in page and "https://" not in page
    assert page.count('<img src="data:image/webp') >= 14
