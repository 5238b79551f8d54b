"""What every verb does around its work: result to standard output, errors to standard error, exit codes, signals."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bfr_models.errors import BfrError, UsageError
from flows.cli.supervisor import INTERRUPTED, KEPT, STOP_SECONDS, is_driver
from flows.orchestration.interruption import interruptible, is_interrupted
from tasks.config.environment import prepare_environment
from tasks.engine.daemon_threads import end_if_busy
from tasks.engine.spot_notice import watch_for_notice
from tasks.storage.redaction import redact_text
from tasks.storage.refusals import refusal
from tasks.storage.waits import show_waits


def run(
    work: Callable[[], Any],
    show: Callable[[Any], None],
    as_json: bool,
    debug: bool,
    exit_code: Callable[[Any], int] = lambda _: 0,
) -> None:
    """Does a verb's work, prints its result or its error, and exits with its code."""
    prepare_environment()
    show_waits()
    failed: list[int] = []
    atexit.register(_end, failed)  # before Prefect and Ray register theirs, so that it is called after them
    try:
        with interruptible(STOP_SECONDS if is_driver() else 0):
            watch_for_notice(os.getppid() if is_driver() else os.getpid())
            result = work()
    except BaseException as error:
        code, message = explain(error)
        failed.append(code)
        message = redact_text(message)
        if debug:
            print(redact_text(traceback.format_exc()), file=sys.stderr)
        if as_json:
            print(json.dumps({"error": message, "exit_code": code}))
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(code) from None
    if as_json:
        print(json.dumps(result, indent=2, default=str))
    else:
        show(result)
    raise typer.Exit(exit_code(result))


def _end(failed: list[int]) -> None:
    """Runs last, after Prefect and Ray have shut down: a failed verb does not wait for a thread that hangs."""
    for code in failed:
        end_if_busy(code)


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message for whatever ended a verb. What fails once a signal was heard fails because of it."""
    if is_interrupted() or _is_signal(error):
        return INTERRUPTED, f"interrupted; {KEPT}"
    if isinstance(error, BfrError):
        return error.exit_code, str(error)
    if isinstance(error, ValidationError):
        return UsageError.exit_code, "; ".join(_fault(found) for found in error.errors())
    if refused := refusal(error):
        return BfrError.exit_code, refused
    return BfrError.exit_code, f"{type(error).__name__}: {error} (--debug shows where)"


def _is_signal(error: BaseException) -> bool:
    """Also as Prefect and Ray raise it, each in place of the handler that they find."""
    by_ray = isinstance(error, SystemExit) and error.code == signal.SIGTERM
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TerminationSignal" or by_ray


def _fault(found: ErrorDetails) -> str:
    place, message = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
    if not place:  # about the settings as a whole
        return message
    return f"{place}: {message}" if found["type"] == "missing" else f"{place}: {message}, found {found['input']!r}"
