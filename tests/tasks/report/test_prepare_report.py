"""The report's templates are compiled while a run waits."""

from __future__ import annotations

import re

from tasks.report.page import TEMPLATES
from tasks.report.run_report import PARTS, prepare_report


def test_all_parts_of_the_page_are_compiled_before_it_is_made() -> None:
    page = (TEMPLATES / "report.html.j2").read_text(encoding="utf-8")
    assert set(PARTS) == {"report.html.j2", *re.findall(r'{% include "([^"]+)"', page)}
    prepare_report()
