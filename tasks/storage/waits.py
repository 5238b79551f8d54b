"""Lines for whoever watches a command: what it starts and what it waits for. They go to the terminal and to the log."""

from __future__ import annotations

import logging
import time

LOGGER = "tasks.waits"
LINE_SECONDS = 10.0
NOTE = 25
"""The level of lines that are shown unless somebody wants quiet: above INFO, below WARNING."""

logging.addLevelName(NOTE, "NOTE")


def say(line: str) -> None:
    """Says what the command does now."""
    logging.getLogger(LOGGER).log(NOTE, "%s", line)


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
