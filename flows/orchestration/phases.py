"""A phase of a recipe: a Prefect task with retries, or a plain call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from bfr_models.errors import BfrError
from tasks.storage.redaction import redact_error, redact_text

RETRY_DELAYS: list[float] = [2, 10]  # seconds


Phase = Callable[[Callable[..., Any], str], Callable[..., Any]]
"""(function, name) -> the function as a phase of the recipe: wrapped as a Prefect task, or unchanged."""


Result = TypeVar("Result")


RAISED_BY_RUN = "raised by the run itself, not by Prefect"


def with_fallback(with_prefect: Callable[[], Result], without: Callable[[], Result]) -> Result:
    """Calls the first; if Prefect itself fails, calls the second."""
    try:
        return with_prefect()
    except BfrError:
        raise
    except Exception as error:
        if RAISED_BY_RUN in getattr(error, "__notes__", ()):
            raise
        reason = redact_text(f"{type(error).__name__}: {error}")
        print(f"Prefect failed ({reason}); continuing without it", file=sys.stderr)
        return without()


def call_directly(function: Callable[..., Any], _name: str) -> Callable[..., Any]:
    """The function unchanged: a phase without Prefect."""
    return function


def as_prefect_task(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A task with retries, since every phase resumes where it stopped; our own errors are final: a person must act."""
    settings = task(
        task_run_name=name,
        tags={"bfr"},
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=RETRY_DELAYS,
        retry_condition_fn=_is_not_final,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return settings(_marking_its_errors(function))


def _marking_its_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            error.add_note(RAISED_BY_RUN)
            redact_error(error)  # Prefect stores it
            raise

    return call


def _is_not_final(_task: object, _run: object, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), BfrError)
