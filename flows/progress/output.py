"""What is said on standard error, and in which form.

Results go to standard output. All else is logged: by the loggers of this project, whose lines this module prints. On a
terminal a progress bar stays below them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.storage.redaction import redact_text
from tasks.storage.waits import NOTE

OURS = ("flows", "tasks", "bfr_models")


@dataclass
class Output:
    """How this process speaks."""

    level: int = NOTE
    as_json: bool = False
    verb: str = ""
    said: bool = False  # whether anything has been said yet

    @property
    def has_bars(self) -> bool:
        """Whether somebody looks at a terminal, and wants to see what moves."""
        return self.level <= NOTE and not self.as_json and sys.stderr.isatty()


output = Output()


class _StandardError(logging.Handler):
    """Prints what is logged, from the level on that was asked for."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < output.level:
            return
        output.said = True
        text = redact_text(record.getMessage())
        if output.as_json:
            text = json.dumps(_fields(record, text), default=str)
        print(text, file=sys.stderr, flush=True)  # found anew: a progress bar replaces it


def _fields(record: logging.LogRecord, text: str) -> Mapping[str, Any]:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    figures = getattr(record, "figures", {})  # of a progress line
    return {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": text, **figures}


_handler = _StandardError()


def begin(verb: str, *, quiet: bool = False, verbose: bool = False, log: str = "text") -> None:
    """From here on, prints what this project logs."""
    output.level = logging.ERROR if quiet else logging.INFO if verbose else NOTE
    output.as_json, output.verb, output.said = log == "json", verb, False
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(min(output.level, NOTE))
        if _handler not in logger.handlers:
            logger.addHandler(_handler)


def sign_of_life() -> None:
    """Says what is being started, if nothing has been said yet."""
    if not output.said:
        logging.getLogger("flows").log(NOTE, "bfr %s: starting", output.verb)


def error(message: str) -> None:
    """Says why the command ends: also if it is to be quiet."""
    logging.getLogger("flows").error("%s", message if output.as_json else f"error: {message}")
