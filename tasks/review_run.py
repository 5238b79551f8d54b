"""`bfr review`: people look at the faces of a run, before and after, and decide; their decisions are rows of the run.

A page on this machine shows the faces, those that need it most first. Each decision is a record in `review/decisions/`
before the page says so (`tasks/runs/reviews.py`); `bfr export --only approved`, `bfr restore --redo` and `bfr curate`
go by them.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

from bfr_models.errors import UsageError
from tasks.export.rows import open_export
from tasks.review.server import Review
from tasks.review.session import Session

MAX_NAME = 100


def review_run(
    url: str,
    *,
    reviewer: str | None = None,
    port: int = 0,
    year_column: str | None = None,
    show: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Serves the review of a finished run until its page ends it; `show` is told the page's address. Returns how many
    faces have which verdict, of all reviewers and of this one.

    UsageError for a run that is not finished, a name that is none, and a port that is taken.
    """
    name = (reviewer if reviewer is not None else getpass.getuser()).strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"expected the name of a reviewer, of at most {MAX_NAME} characters, found {reviewer!r}")
    session = Session(open_export(url), name, year_column)
    session.open()
    review = Review(session, port)
    show(review.url)
    review.run()
    return session.result()
