"""A phase of a recipe: a Prefect task with retries, or a plain call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from traceback import walk_tb
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, get_current_settings, temporary_settings

from bfr_models.errors import BfrError
from flows.orchestration.early_server import NoApiError, await_server, is_embedded
from flows.orchestration.interruption import heed_interruption
from tasks.storage.redaction import redact_error, redact_text

_log = logging.getLogger(__name__)

RETRY_DELAYS: list[float] = [2, 10]  # seconds
OURS = ("flows", "tasks", "bfr_models")


Phase = Callable[[Callable[..., Any], str], Callable[..., Any]]
"""(function, name) -> the function as a phase of the recipe: wrapped as a Prefect task, or unchanged."""


Result = TypeVar("Result")


def embed_server() -> None:
    """Makes Prefect's embedded server, where one is needed, end with this process. Call before the first flow."""
    if get_current_settings().api.url is None:
        from flows.orchestration.late_server import EmbeddedServer  # imports all of Prefect's server

        EmbeddedServer()


def with_fallback(with_prefect: Callable[[], Result], without: Callable[[], Result]) -> Result:
    """Calls the first; if Prefect itself fails, calls the second. An interruption is no failure of Prefect, even if it
    has ended Prefect's server before it came here."""
    try:
        await_server()
        embed_server()
        with _no_needless_heartbeats():
            return with_prefect()
    except Exception as error:
        is_prefects = isinstance(error, NoApiError) or raised_by_prefect(error)
        if isinstance(error, BfrError) or not is_prefects:
            raise
        heed_interruption()
        reason = redact_text(str(error) if isinstance(error, NoApiError) else f"{type(error).__name__}: {error}")
        _log.warning("Prefect failed (%s); continuing without it", reason)
        return without()


def _no_needless_heartbeats() -> AbstractContextManager[object]:
    """With a server of this process alone, nobody looks for those of a flow run; Prefect takes up to a second to end
    the thread that sends them."""
    api = get_current_settings().api.url  # none: of a server that `embed_server` started
    if api is None or is_embedded(api):
        return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    return nullcontext()


def raised_by_prefect(error: Exception) -> bool:
    """Whether Prefect, or a library at its behest, raised it: of the frames of Prefect and of this project, the
    innermost tells. What Ray or a store raises was called by this project."""
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in OURS:
            return False
        if package == "prefect":
            return True
    return False


def call_directly(function: Callable[..., Any], _name: str) -> Callable[..., Any]:
    """The function unchanged: a phase without Prefect."""
    return function


def as_prefect_task(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A task with retries, since every phase resumes where it stopped; our own errors are final: a person must act."""
    settings = task(
        task_run_name=name,  # and no tags: Prefect asks its server for limits of each, which can take seconds
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=RETRY_DELAYS,
        retry_condition_fn=_is_not_final,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return settings(_with_redacted_errors(function))


def _with_redacted_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            redact_error(error)  # Prefect stores it
            raise

    return call


def _is_not_final(_task: object, _run: object, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), BfrError)
