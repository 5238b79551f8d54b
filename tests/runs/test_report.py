"""The report of a run as it is made, from its files; and as a reader has it, in a real browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bfr_models.registry import methods
from tasks.render_report import render_report as render_again
from tasks.report.cards import Cell, GalleryRow, cards_of
from tasks.report.run_report import render_report, write_report
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import latest_plan
from tasks.storage.store import Store
from tests import support
from tests.browser import chromium, violations, watched_page
from tests.judges import BAD, GOOD, judge_runs
from tests.tiled_photos import find_tiles, photo


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plugin_path: str) -> Iterator[Path]:
    """A run of five photos with six faces, two of them kept, and of two rows that do not decode."""
    folder = tmp_path_factory.mktemp("report")
    pictures = [photo(1, 2), photo(3), photo(25), photo(4), photo(5)]
    rows = [
        {"id": f"a/{i}.png", "image": {"bytes": support.encoded(picture), "path": None}}
        for i, picture in enumerate(pictures)
    ]
    rows += [{"id": f"broken-{i}", "image": {"bytes": b"no picture" * i or None, "path": None}} for i in range(2)]
    support.write_parquet(folder / "src" / "a.parquet", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*plugin_path.split(os.pathsep)[:2], *sys.path])
        methods.cache_clear()
        support.use_mean_colours(patch)
        find_tiles(patch)
        kept = support.portrait(3, 96).mean()
        judge_runs(patch, lambda face, candidate: BAD if abs(face.mean() - kept) < 1 else GOOD)
        support.finished_run(support.make_run(folder, "faulty", input="photos", max_rejects=1.0))
        yield folder / "dst"
    methods.cache_clear()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def comparison(tmp_path: Path, run: Path) -> Path:
    """A page of three runs side by side."""
    image = support.encoded(support.portrait(1))
    cells = [Cell(name, image, "words", 0.9) for name in ("input", "one", "two", "gt")]
    record = support.read_record(run)
    other = record | {"method": record["method"] | {"name": "another"}}
    rows = [GalleryRow(f"row {i}", tuple(cells)) for i in range(3)]
    path = tmp_path / "index.html"
    path.write_text(render_report("Three", [record, other, record], cards_of(rows), []))
    return path


def test_a_commit_names_faces_and_their_distributions(run: Path) -> None:
    record = support.read_record(run)
    assert record["totals"]["faces"] == 6 and record["totals"]["changed"] < record["totals"]["restored"] == 5
    assert record["distributions"]["gain"]["n"] == 6 and record["distributions"]["seconds"]["n"] == 5
    outcomes = {example["outcome"] for example in record["examples"]}
    assert outcomes == set(record["outcomes"]) == {"restored", "kept_original"}
    assert all(example["file"].startswith("data/") for example in record["examples"])


def test_the_page_shows_each_face_its_photo_and_the_rejects(run: Path) -> None:
    html = (run / "report" / "index.html").read_text()
    assert html.count('<li class="card') == 6 and 'id="photo"' in html
    assert html.count('data-outcome="kept original"') == support.read_record(run)["outcomes"]["kept_original"]
    assert "broken-0" in html and "broken-1" in html
    render_again(str(run))
    assert (run / "report" / "index.html").read_text() == html


def test_the_page_of_a_run_of_an_earlier_version_shows_faces_too(run: Path) -> None:
    """Its run.json names no faces, and has neither stages nor distributions."""
    record = support.read_record(run)
    new = ("examples", "distributions", "timings")
    old = {key: value for key, value in record.items() if key not in new}
    old["totals"] = {key: value for key, value in record["totals"].items() if key != "changed"}
    store = Store(str(run))
    before = (run / "report" / "index.html").read_text()
    write_report(store, latest_plan(store), read_manifest(store), old, support.make_run(run.parent, "faulty"))
    html = (run / "report" / "index.html").read_text()
    (run / "report" / "index.html").write_text(before)
    assert html.count('<li class="card') == 6 and "The stages were not timed" in html


@pytest.mark.slow
@pytest.mark.parametrize(("width", "colours"), [(1400, "light"), (390, "dark")])
def test_the_pages_are_for_everybody(run: Path, comparison: Path, browser: Any, width: int, colours: str) -> None:
    """No error, no request, nothing that axe-core finds, nothing wider than the screen."""
    size = {"width": width, "height": 844}
    for path in (run / "report" / "index.html", comparison):
        page, troubles = watched_page(browser, path, viewport=size, color_scheme=colours, bypass_csp=True)
        assert violations(page) == [] and troubles == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.context.close()


@pytest.mark.slow
def test_the_page_slides_sorts_filters_and_links(run: Path, comparison: Path, browser: Any) -> None:
    page, troubles = watched_page(browser, run / "report" / "index.html")
    cut = "getComputedStyle(document.querySelector('.card[data-outcome=restored] .stack')).getPropertyValue('--cut')"
    page.locator(".card[data-outcome=restored] .stack input").first.fill("20")
    assert page.evaluate(cut) == "20%"
    seen = page.locator(".card:visible")
    page.select_option("#tool-outcome", "kept original")
    kept = support.read_record(run)["outcomes"]["kept_original"]
    assert seen.count() == kept and page.locator("#tool-count").inner_text() == f"{kept} of 6 shown"
    hidden = page.locator(".card[data-outcome=restored]").first.get_attribute("id")
    page.evaluate("id => location.hash = id", hidden)
    page.wait_for_function("document.querySelector('#tool-outcome').value === ''")
    assert seen.count() == 6
    page.select_option("#tool-sort", "gain")
    gains = page.evaluate("[...document.querySelectorAll('.card')].map(card => Number(card.dataset.ngain))")
    assert gains == sorted(gains, reverse=True)
    page.fill("#tool-id", "a/0")
    assert seen.count() == 2
    assert troubles == []
    page.goto(comparison.as_uri())
    assert page.locator(".card .stack:visible").count() == 3
    page.select_option("#tool-left", "two")
    assert page.locator(".sides").first.inner_text() == "two left, one right"
    assert troubles == []
