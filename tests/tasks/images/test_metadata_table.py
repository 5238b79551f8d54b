"""The table of docs/images.md is what ExifTool sees."""

from __future__ import annotations

import shutil

import pytest

from tests.metadata_table import as_markdown, outcomes
from tests.support import ROOT


@pytest.mark.skipif(not shutil.which("exiftool"), reason="no exiftool: apt-get install libimage-exiftool-perl")
def test_nothing_is_lost_without_a_word_and_the_document_says_the_same() -> None:
    table = as_markdown(outcomes())
    assert "LOST" not in table
    assert table in (ROOT / "docs" / "images.md").read_text()
