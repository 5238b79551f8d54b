"""A session over a run of aligned faces with hostile ids."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tasks.export.rows import open_export
from tasks.review.session import Session


def opened(run: Path | str, reviewer: str = "Anna") -> Session:
    """A session whose faces have all been read."""
    session = Session(open_export(str(run)), reviewer)
    session.open()
    while not session.faces.is_whole and not session.faces.failed:
        time.sleep(0.01)
    assert not session.faces.failed
    return session


@pytest.fixture
def copy(hostile_run: Path, tmp_path: Path) -> Path:
    """A run to decide about: 18 rows, of which row 3 is rejected."""
    return Path(shutil.copytree(hostile_run, tmp_path / "dst"))


@pytest.fixture
def session(copy: Path) -> Session:
    return opened(copy)
