"""What every verb does around its work: result to standard output, errors as the contract says, exit codes."""

from __future__ import annotations

import atexit
import json
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bfr_models.errors import BfrError, UsageError
from tasks.config.environment import prepare_environment
from tasks.engine.daemon_threads import end_if_busy
from tasks.engine.spot_notice import watch_for_notice
from tasks.storage.redaction import redact_text

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help="Dataset: a folder, a glob or one file; any fsspec URL.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Where to write; any fsspec URL.")]
Metrics = Annotated[str | None, typer.Option(metavar="NAME,...", help="Measured as well: ms_ssim, niqe, lmd.")]
PROTOCOL_HELP = "Whose figures to give: default, vqfr, difface or ntire2025."
Protocol = Annotated[str, typer.Option(help=PROTOCOL_HELP)]

INTERRUPTED = 130


def run(
    work: Callable[[], Any],
    show: Callable[[Any], None],
    as_json: bool,
    debug: bool,
    exit_code: Callable[[Any], int] = lambda _: 0,
) -> None:
    """Does a verb's work and ends the process as the contract says."""
    prepare_environment()
    _take_signals()
    failed: list[int] = []
    atexit.register(_end, failed)  # before Prefect and Ray register theirs, so that it is called after them
    try:
        watch_for_notice()
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


def _take_signals() -> None:
    """SIGINT and SIGTERM interrupt the work, once: a second one, while Ray and Prefect are put away, would leave
    their processes behind."""
    heard = False

    def interrupt(*_: object) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def _end(failed: list[int]) -> None:
    """The last thing in the life of a verb."""
    for code in failed:
        end_if_busy(code)


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of whatever ended a verb."""
    if isinstance(error, BfrError):
        return error.exit_code, str(error)
    if isinstance(error, ValidationError):
        return UsageError.exit_code, "; ".join(_fault(found) for found in error.errors())
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TerminationSignal":  # Prefect's SIGTERM
        return INTERRUPTED, "interrupted; what is done is kept, the same command goes on from there"
    return BfrError.exit_code, f"{type(error).__name__}: {error} (--debug shows where)"


def _fault(found: ErrorDetails) -> str:
    place, message = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
    if not place:  # of the settings as a whole
        return message
    return f"{place}: {message}" if found["type"] == "missing" else f"{place}: {message}, found {found['input']!r}"
