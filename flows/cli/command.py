"""What every verb does around its work: result to standard output, errors to standard error, exit codes, signals."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from bfr_models.errors import BfrError
from flows.cli.faults import advice_on, advice_on_settings
from flows.cli.supervisor import INTERRUPTED, KEPT, STOP_SECONDS, is_driver, seconds_since_start
from flows.orchestration.interruption import interruptible, is_interrupted
from flows.progress import output
from tasks.config.environment import prepare_environment
from tasks.engine.busy_exit import end_if_busy
from tasks.engine.spot_notice import watch_for_notice
from tasks.storage.redaction import redact_text
from tasks.storage.refusals import refusal
from tasks.storage.waits import say

TOLD_SECONDS = 5.0  # from which on a command says how long it took in all
SIGN_SECONDS = 0.7  # after which a command that has said nothing yet gives a sign of life


def run(
    work: Callable[[], Any],
    show: Callable[[Any], None],
    as_json: bool,
    debug: bool,
    exit_code: Callable[[Any], int] = lambda _: 0,
) -> None:
    """Does a verb's work, prints its result or its error, and exits with its code."""
    sign = threading.Timer(SIGN_SECONDS, output.sign_of_life)
    sign.daemon = True
    sign.start()
    failed: list[int] = []
    atexit.register(_end, failed)  # before Prefect and Ray register theirs, so that it is called after them
    try:
        with interruptible(STOP_SECONDS if is_driver() else 0):
            prepare_environment()
            watch_for_notice(os.getppid() if is_driver() else os.getpid())
            result = work()
    except BaseException as error:
        code, message = explain(error)
        failed.append(code)
        message = redact_text(message)
        if debug:
            print(redact_text(traceback.format_exc()), file=sys.stderr)
        if as_json:
            _print_error(message, code)
        output.error(message)
        raise typer.Exit(code) from None
    finally:
        sign.cancel()
    if as_json:
        print(json.dumps(result, indent=2, default=str))
    else:
        show(result)
    raise typer.Exit(exit_code(result))


class Commands(TyperGroup):
    """The verbs. What Typer itself finds wrong with the words of a command is told with --json as one document, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _told_as_json(args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _told_as_json(ctx.args):
            return super().invoke(ctx)


@contextmanager
def _told_as_json(arguments: Sequence[str]) -> Iterator[None]:
    as_json = "--json" in arguments  # asked before they are consumed
    try:
        yield
    except TyperException as error:
        if as_json:
            _print_error(redact_text(error.format_message()), error.exit_code)
        raise


def _print_error(message: str, code: int) -> None:
    print(json.dumps({"error": message, "exit_code": code}))


def _end(failed: list[int]) -> None:
    """Runs last, after Prefect and Ray have shut down: tells the whole time, and a failed verb does not wait for a
    thread that hangs."""
    if is_driver() and (seconds := seconds_since_start()) > TOLD_SECONDS:
        say(f"bfr {output.output.verb}: {seconds:.1f} s from start to end")
    for code in failed:
        end_if_busy(code)


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message for whatever ended a verb. What fails once a signal was heard fails because of it."""
    if is_interrupted() or _is_signal(error):
        return INTERRUPTED, f"interrupted; {KEPT}"
    if isinstance(error, BfrError):
        return error.exit_code, str(error)
    if refused := refusal(error):
        return refused.exit_code, str(refused)
    if advice := advice_on(error) if isinstance(error, OSError) else advice_on_settings(error):
        return advice.exit_code, str(advice)
    return BfrError.exit_code, f"{type(error).__name__}: {error} (--debug shows where)"


def _is_signal(error: BaseException) -> bool:
    """Also as Prefect and Ray raise it, each in place of the handler that they find."""
    by_ray = isinstance(error, SystemExit) and error.code == signal.SIGTERM
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TerminationSignal" or by_ray
