"""Jobs that a Ray cluster runs by itself: handed in at its dashboard's address, and asked about there."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from bfr_models.errors import BfrError, UsageError
from tasks.engine.ray_token import prepare_token
from tasks.storage.redaction import redact, redact_text, without_secrets

STARTED = stop_after_delay(60)
STOP_SECONDS = 30  # for a run to stop in good order; Ray's own 3 would kill it


def submit(words: Sequence[str]) -> str:
    """Hands in `bfr WORDS...`; the job's id. Nothing of this machine's environment goes with it, since job lists show
    that too. UsageError if a word holds a secret."""
    for word in words:
        if without_secrets(word) != word or redact_text(word) != word:
            raise UsageError(
                f"expected addresses without user, password and signature, found {redact_text(word)} with one: job "
                "lists and process lists show them to everybody; let the cluster's nodes have the keys"
            )
    with _client() as client:
        tries = Retrying(retry=retry_if_exception(_is_starting), wait=wait_fixed(1), stop=STARTED, reraise=True)
        command, variables = shlex.join(["bfr", *words]), {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        return str(tries(client.submit_job, entrypoint=command, runtime_env={"env_vars": variables}))


def _is_starting(error: BaseException) -> bool:
    """Whether the head's dashboard is there, and what runs its jobs not yet."""
    return isinstance(error, RuntimeError) and "No available agent" in str(error)


def jobs() -> list[dict[str, Any]]:
    """All jobs that were handed in, the newest first, as `job` gives them."""
    with _client() as client:
        found = [_described(one) for one in client.list_jobs() if one.submission_id]
    return sorted(found, key=lambda one: one["started"] or "", reverse=True)


def job(name: str) -> dict[str, Any]:
    """Its `state` (pending, running, stopped, succeeded or failed), times, command, exit code, and what Ray says."""
    with _client() as client:
        return _described(client.get_job_info(name))


def stop(name: str) -> bool:
    """Asks it to stop in good order; False if it has ended already."""
    with _client() as client:
        return bool(client.stop_job(name))


def logs(name: str, *, follow: bool) -> Iterator[str]:
    """What it has said so far; with `follow`, piece by piece until it ends."""
    with _client() as client:
        if not follow:
            yield str(client.get_job_logs(name))
            return
        pieces = client.tail_job_logs(name)
        with asyncio.Runner() as runner:
            while (piece := runner.run(anext(pieces, None))) is not None:
                yield str(piece)


@contextmanager
def _client() -> Iterator[Any]:
    from ray.job_submission import JobSubmissionClient

    given = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not given or given == "local":
        raise UsageError(
            "expected RAY_API_SERVER_ADDRESS to name a cluster's dashboard (http://head:8265), found none; set it"
        )
    prepare_token()
    logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)  # it tells of each connection that ends
    try:
        yield JobSubmissionClient()
    except (OSError, RuntimeError, ValueError) as error:
        raise _refusal(given, error) from None


def _refusal(address: str, error: Exception) -> BfrError:
    """What Ray's answer means: no such job, no token, or no cluster."""
    said = redact_text(" ".join(str(error).split()))[:300]
    if "does not exist" in said or "404" in said:
        return UsageError(
            f"expected a job of the cluster at {redact(address)}, found: {said}; `bfr submit --list` has them"
        )
    return UsageError(
        f"expected a Ray dashboard at {redact(address)}, found: {said}; if it asks for a token, set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    )


def _described(found: Any) -> dict[str, Any]:
    def when(milliseconds: int | None) -> str | None:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None

    return {
        "job": found.submission_id,
        "state": str(found.status).lower(),
        "command": found.entrypoint,
        "started": when(found.start_time),
        "ended": when(found.end_time),
        "exit_code": found.driver_exit_code,
        "message": redact_text(found.message or ""),
    }
