"""A review of 201 faces from the keyboard, in a real browser: killed in the middle, resumed, exported.

Needs Debian's `chromium`, and from PyPI `playwright` and `axe-core-python`; it is skipped without them.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tasks.export_run import export_run
from tasks.images.codec import decode
from tasks.runs.reviews import read_reviews
from tasks.storage.store import Store
from tests import support
from tests.browser import PATIENCE
from tests.tiled_photos import TILE, photo

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium: `apt-get install chromium`", allow_module_level=True)
sync_playwright = pytest.importorskip("playwright.sync_api", reason="`pip install playwright`").sync_playwright

PHOTOS, FACES = 67, 3
KEYS = {"a": "approved", "k": "original", "s": "skipped", "r": "redo"}


@pytest.fixture
def run(mirror: str, tmp_path: Path) -> Path:
    """A run of 67 photos with three faces each, all of them mirrored."""
    rows = [
        {"id": f"{1900 + n}/{n:02}.png", "image": {"bytes": support.encoded(image(n)), "path": None}, "year": 1900 + n}
        for n in range(PHOTOS)
    ]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=8)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos", shard_rows=8))
    return tmp_path / "dst"


def image(number: int) -> Any:
    return photo(number, number + 1, number + 2)


@contextmanager
def review(run: Path, *arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    """`bfr review`: the address of its page, and the process that serves it."""
    command = [*support.BFR, "review", str(run), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=support.ROOT) as bfr:
        assert bfr.stderr is not None
        try:
            line = next(line for line in bfr.stderr if line.startswith("review: "))
            yield line.split()[1], psutil.Process(bfr.pid).children()[0]
        finally:
            bfr.terminate()


class Reviewer:
    """Works on the page by its keys, and notes what the page says is decided."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.troubles: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda one: one.url.startswith((url, "data:")) or self.troubles.append(one.url))
        self.page.goto(url)
        self.page.wait_for_selector("#tiles li")

    @property
    def face(self) -> int:
        return int(self.page.evaluate("Number(document.activeElement.closest('li')?.dataset.face ?? -1)"))

    @property
    def shown(self) -> dict[int, str]:
        """The faces of this page of which it says that they are decided."""
        script = """[...document.querySelectorAll('#tiles li')].map((item) =>
            [Number(item.dataset.face), item.firstElementChild.className.split(' ')[1]])"""
        return {face: verdict for face, verdict in self.page.evaluate(script) if verdict in KEYS.values()}

    def press(self, key: str, *, last: bool = False) -> None:
        """Decides about the current face; waits until another one is the current one."""
        before = self.face
        self.page.keyboard.press(key)
        if key == "r":
            self.page.select_option("#redo select", "difface")
            self.page.locator("#redo input").press("Enter")
        if not last:
            self.page.wait_for_function(
                "before => Number(document.activeElement.closest('li')?.dataset.face ?? before) !== before", arg=before
            )

    def at(self, face: int) -> None:
        """Waits until this is the current face."""
        self.page.wait_for_function(
            "face => Number(document.activeElement.closest('li')?.dataset.face) === face", arg=face
        )

    def told(self, progress: str) -> None:
        """Waits until the page says so of how much is decided."""
        self.page.wait_for_function(
            "told => document.getElementById('bar-label').textContent.includes(told)", arg=progress
        )

    def saved(self) -> None:
        self.page.wait_for_function("() => !document.querySelector('.saving')")

    def violations(self) -> list[str]:
        """What axe-core finds."""
        found = importlib.util.find_spec("axe_core_python")
        if found is None or not found.submodule_search_locations:
            pytest.skip("no axe-core: `pip install axe-core-python`")
        code = Path(found.submodule_search_locations[0], "axe.min.js").read_text()
        result = self.page.evaluate(f"{code}; axe.run(document, {{resultTypes: ['violations']}})")
        return [f"{one['id']}: {node['html'][:200]}" for one in result["violations"] for node in one["nodes"]]


@pytest.fixture
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


def key_for(face: int) -> str:
    return "krs"[face % 10] if face % 10 < 3 else "a"


@pytest.mark.slow
def test_200_faces_from_the_keyboard_killed_resumed_and_exported(run: Path, browser: Any, tmp_path: Path) -> None:
    store, expected = Store(str(run)), dict[int, str]()
    with review(run, "--reviewer", "Anna") as (url, server):
        anna = Reviewer(browser, url)
        for _ in range(90):
            face = anna.face
            expected[face] = KEYS[key_for(face)]
            anna.press(key_for(face))
        anna.saved()
        last = face
        anna.page.keyboard.press("u")
        anna.page.wait_for_function(
            "last => Number(document.activeElement.closest('li').dataset.face) === last", arg=last
        )
        anna.press(key_for(last))
        assert anna.troubles == []
        anna.page.keyboard.press(key_for(anna.face))  # and at this moment:
        server.kill()
        server.wait()
        shown = anna.shown
    decided = {3 * key.row + key.face: one.verdict for key, one in read_reviews(store).current.items()}
    assert expected.items() <= decided.items() and shown.items() <= decided.items() and len(decided) in (90, 91)
    with review(run, "--reviewer", "Anna") as (url, server):
        anna = Reviewer(browser, url)
        anna.saved()
        left = PHOTOS * FACES - len(decided)
        closed = sum(verdict != "skipped" for verdict in decided.values())
        anna.told(f"{closed} of 201 ")
        for number in range(left):
            face = anna.face
            assert face not in decided
            decided[face] = KEYS[key_for(face)]
            anna.press(key_for(face), last=number == left - 1)
        anna.saved()
        assert anna.troubles == []
        anna.page.get_by_role("button", name="End session").click()
        anna.page.wait_for_function(
            "() => document.getElementById('notice').textContent.startsWith('The session is over')"
        )
        server.wait(timeout=120)
    reviews = read_reviews(store).current
    assert {3 * key.row + key.face: one.verdict for key, one in reviews.items()} == decided
    assert decided == {face: KEYS[key_for(face)] for face in range(PHOTOS * FACES)}
    report = export_run(str(run), str(tmp_path / "files"), only="approved")
    assert report["missing"] == 0
    for number in range(PHOTOS):
        approved = [face for face in range(FACES) if decided[3 * number + face] == "approved"]
        path = tmp_path / "files" / f"{1900 + number}/{number:02}.png"
        assert path.exists() == bool(approved)
        if approved:
            changed = (decode(path.read_bytes()).pixels != image(number)).any(axis=-1)
            assert [face for face in range(FACES) if changed[:, TILE * face : TILE * (face + 1)].any()] == approved


@pytest.mark.slow
def test_the_page_is_for_everybody(run: Path, browser: Any, tmp_path: Path) -> None:
    """axe-core finds nothing, in both colours and on a phone, whatever is open; nothing is wider than the screen."""
    with review(run) as (url, _):
        for width, colours in ((1400, "light"), (390, "dark")):
            size = {"width": width, "height": 844}
            one = Reviewer(browser, url, viewport=size, color_scheme=colours, bypass_csp=True)
            one.page.keyboard.press("a")
            one.saved()
            for keys in ("", "Enter", "f", "Escape", "r", "Escape", "?"):
                if keys:
                    one.page.keyboard.press(keys)
                one.page.wait_for_timeout(300)
                assert one.violations() == [], keys
            assert one.page.evaluate("document.documentElement.scrollWidth") == width
            assert one.troubles == []
            one.page.keyboard.press("Escape")
            one.page.keyboard.press("f")
            one.page.wait_for_selector("#boxes button")
            assert one.page.locator("#boxes button").count() == FACES
            one.page.locator("#boxes button").nth(2).click()
            one.page.wait_for_function(
                "() => document.querySelector('#boxes [aria-current]').ariaLabel.startsWith('face 3')"
            )
            one.page.screenshot(path=tmp_path / f"photo{width}.png")
            assert np.asarray(support.decoded((tmp_path / f"photo{width}.png").read_bytes())).shape[1] == width
        one = Reviewer(browser, url)  # filters leave what they say
        one.page.select_option("[name=state]", "")
        one.page.select_option("[name=decade]", "1930")
        one.told("of 30 ")
        assert all(30 <= face // 3 < 40 for face in one.page.evaluate(
            "[...document.querySelectorAll('#tiles li')].map((item) => Number(item.dataset.face))"))  # fmt: skip
        one.page.fill("[name=folder]", "1931")
        one.page.keyboard.press("Tab")
        one.page.wait_for_function("() => document.querySelectorAll('#tiles li').length === 3")
        one.page.locator("#tiles .tile").first.focus()
        one.page.keyboard.press("A")
        one.told("3 of 3 ")
        assert one.troubles == []
