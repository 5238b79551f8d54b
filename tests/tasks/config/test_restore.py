"""The settings of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests import support


def test_a_timeout_that_threads_cannot_keep_is_refused(source: Path) -> None:
    with pytest.raises(ValidationError, match="expected no --shard-timeout with --engine local"):
        support.make_run(source.parent, engine="local", shard_timeout=2.0)
