"""A real browser for the tests of pages: Debian's `chromium`, and from PyPI `playwright` and `axe-core-python`. Tests
that need one are skipped where it is missing, and say what to install."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
PATIENCE = 240_000  # ms for a page to do anything, on a busy machine


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, without a window."""
    if CHROMIUM is None:
        pytest.skip("no chromium: `apt-get install chromium`")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: `pip install playwright`")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds on a page that was opened with `bypass_csp`."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no axe-core: `pip install axe-core-python`")
    code = Path(found.submodule_search_locations[0], "axe.min.js").read_text()
    result = page.evaluate(f"{code}; axe.run(document, {{resultTypes: ['violations']}})")
    return [f"{one['id']}: {node['html'][:200]}" for one in result["violations"] for node in one["nodes"]]


def watched_page(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """A file in a page of its own, and the list of what goes wrong: errors, and requests to anywhere."""
    page, troubles = browser.new_context(**options).new_page(), list[str]()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else troubles.append(asked.url[:200])
    )
    page.goto(path.as_uri())
    return page, troubles
