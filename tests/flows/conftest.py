"""What the command line's tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from flows.orchestration import interruption


@pytest.fixture
def signals() -> Iterator[None]:
    """Restores the signal handlers that the command replaces, and forgets what they have heard."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    interruption._heard.clear()
