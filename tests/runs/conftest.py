"""What runs from end to end share."""

from __future__ import annotations

import pytest

from tests import support


@pytest.fixture
def mean_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    support.use_mean_colours(monkeypatch)
