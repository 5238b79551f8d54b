"""Carries what workers log, from warnings upward, to the driver's log along with the result of each shard."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterable

KEPT = 50  # lines between two shards; the oldest are dropped
Line = tuple[int, str, str]
"""(level, text, logger)"""


class WorkerLog(logging.Handler):
    """Collects the last lines of this process until they are taken; consecutive equal ones once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines = deque[Line](maxlen=KEPT)
        logging.captureWarnings(True)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = (record.levelno, record.getMessage().strip()[:500], record.name)
        if not self._lines or self._lines[-1] != line:
            self._lines.append(line)

    def take(self) -> list[Line]:
        """The lines since the last call."""
        where, lines = f"{socket.gethostname()}, process {os.getpid()}", list(self._lines)
        self._lines.clear()
        return [(level, f"{where}: {text}", logger) for level, text, logger in lines]


def relay(lines: Iterable[Line]) -> None:
    """Logs a worker's lines in this process; what others than this project logged, under this module's name."""
    for level, text, logger in lines:
        logging.getLogger(logger if logger.startswith("tasks.") else __name__).log(level, "%s", text)
