"""Lines about what a run waits for. They are for whoever watches it: they go to the terminal as well as to the log."""

from __future__ import annotations

import logging
import sys
import time

LOGGER = "tasks.waits"
LINE_SECONDS = 10.0


class WaitLines:
    """Lets one line pass every `LINE_SECONDS`, so that many threads that wait for the same thing say it once."""

    def __init__(self) -> None:
        self._last = -LINE_SECONDS

    def are_due(self, waited: float) -> bool:
        """Whether it is time for a line about something that has been waited for that many seconds."""
        return waited >= LINE_SECONDS and time.monotonic() - self._last >= LINE_SECONDS

    def say(self, line: str) -> None:
        self._last = time.monotonic()
        logging.getLogger(LOGGER).warning("%s", line)


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)  # found anew: a progress bar replaces it


def show_waits() -> None:
    """Prints the lines to standard error from here on, whatever else is done with what is logged."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError(logging.WARNING))
