"""What a run shows in Prefect: a progress artifact, a table, a summary, events, and what its workers log.

None of this can fail a run: outside a flow run it does nothing, and it gives up if the API does not answer.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.logging import get_run_logger

from tasks.runs.outcomes import rejects_too_many, standing_rejects, standing_rows, written_words
from tasks.storage.redaction import redact, redact_text

PROGRESS_SECONDS = 10.0
RELAYED = ("tasks", "flows.progress")
LINES, LINES_SECONDS = 30, 60.0
"""At most this many lines from workers per this many seconds go to a run's log; the rest are only counted."""

DEGRADED, FAILED, HELD_BACK, SWITCHED = (
    f"bfr.{what}" for what in ("run.degraded", "run.failed", "generation.held-back", "generation.switched")
)


def best_effort(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a function do nothing outside a flow run, and log its failures instead of raising them."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> None:
        if FlowRunContext.get() is None:
            return
        try:
            function(*arguments, **named)
        except Exception as error:
            get_run_logger().warning("could not update the run's page in Prefect (%s): %s", function.__name__, error)

    return call


class ProgressArtifact:
    """The share of rows that are done, as one artifact. A thread updates it, since the API may be slow."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self._label, self._total, self._done = label, total, done
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def advance(self, rows: int) -> None:
        self._done += rows

    def __enter__(self) -> ProgressArtifact:
        if FlowRunContext.get() is not None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._follow,), name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2)

    @property
    def _percent(self) -> float:
        return 100.0 * self._done / max(self._total, 1)

    def _follow(self) -> None:
        try:
            made: Any = create_progress_artifact(self._percent, description=f"{self._label}: {self._total} rows")
            artifact: UUID = made
            while not self._ended.wait(PROGRESS_SECONDS):
                update_progress_artifact(artifact, self._percent)
            update_progress_artifact(artifact, self._percent)
        except Exception as error:
            get_run_logger().warning("could not update the run's progress in Prefect: %s", error)


@best_effort
def show_record(record: Mapping[str, Any]) -> None:
    """Publishes the statistics as a table and the totals as Markdown with a link to the report; sends an event if too
    many rows were rejected."""
    key, destination = slug(record["arguments"]["destination"]), record["arguments"]["destination"]
    create_table_artifact(list(_table(record["statistics"])), key=f"statistics-{key}", description=destination)
    create_markdown_artifact(_summary(record), key=f"summary-{key}", description=destination)
    if rejects_too_many(record):
        rejects = standing_rejects(record)
        announce(DEGRADED, destination, {"rows": standing_rows(record), "rejected": sum(rejects.values()), **rejects})


@best_effort
def announce(event: str, destination: str, payload: Mapping[str, Any]) -> None:
    """Sends an event about a dataset, for automations to react to."""
    place = redact(destination)
    emit_event(event, {"prefect.resource.id": f"bfr.dataset.{slug(place)}", "address": place}, payload=dict(payload))


@contextmanager
def emit_failure_event(destination: str) -> Iterator[None]:
    """Sends an event if the block raises. A cancelled run has not failed."""
    try:
        yield
    except Exception as error:
        announce(FAILED, destination, {"error": type(error).__name__, "message": redact_text(str(error))[:500]})
        raise


@contextmanager
def relay_worker_logs() -> Iterator[None]:
    """Copies what `tasks` and its workers log, and the lines of the run's progress, to the flow run's log."""
    if FlowRunContext.get() is None:
        yield
        return
    handler = _RunLog(get_run_logger())
    sources = {source: source.level for source in map(logging.getLogger, RELAYED)}
    for source in sources:
        source.addHandler(handler)
        source.setLevel(logging.INFO)
    try:
        yield
    finally:
        for source, level in sources.items():
            source.removeHandler(handler)
            source.setLevel(level)


def slug(place: str) -> str:
    """An address as Prefect allows it in keys and names: a-z, 0-9 and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", redact(place).lower()).strip("-")[-60:].strip("-")


class _RunLog(logging.Handler):
    """Passes records from any thread to a flow run's logger, at a limited rate."""

    def __init__(self, run_logger: Any) -> None:
        super().__init__(logging.INFO)
        self._run_logger = run_logger
        self._context = contextvars.copy_context()  # the flow run's: without it another thread finds no server
        self._since, self._taken, self._left_out = time.monotonic(), 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        self._context.run(self._hand_over, record)

    def _hand_over(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._since > LINES_SECONDS:
            if self._left_out:
                self._run_logger.warning("%d more lines of workers were left out", self._left_out)
            self._since, self._taken, self._left_out = now, 0, 0
        if self._taken < LINES:
            self._taken += 1
            self._run_logger.log(record.levelno, "%s", redact_text(record.getMessage()))
        else:
            self._left_out += 1


def _table(statistics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, found in statistics.items():
        if not isinstance(found, Mapping):
            continue
        row: dict[str, Any] = {"measure": name}
        for key in ("mean", "p05", "p50", "p95", "n"):
            value = found.get(key, found.get("value") if key == "mean" else None)
            row[key] = round(value, 4) if isinstance(value, float) else value
        yield row | {"why": found.get("why", "")}


def _summary(record: Mapping[str, Any]) -> str:
    totals, method, arguments = record["totals"], record["method"], record["arguments"]
    report = f"{arguments['destination']}/report/index.html"
    lines = [
        f"# {totals['rows']:,} rows through {method['name']} ({method['preset']})",
        f"{written_words(totals)}, {totals['rejected']:,} rejected, {totals['faces']} faces, "
        f"{totals['shards']} shards, {totals['wall_seconds']:.1f} s",
        *(f"- rejected as `{code}`: {count}" for code, count in record["rejects"].items()),
        *(f"- **{warning}**" for warning in record.get("warnings", ())),
        f"- from `{arguments['source']}`",
        f"- to `{arguments['destination']}`",
        f"- weights' fingerprint `{method['fingerprint']}`, seed {record['seed']}",
        f"- report: [{report}]({report if '://' in report else 'file://' + report})",
    ]
    rows = [row for row in _table(record["statistics"]) if row["mean"] is not None]
    figures = ["| measure | mean | 5 % | 95 % | n |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row["measure"], *("" if row[key] is None else row[key] for key in ("mean", "p05", "p95", "n")))
        figures.append(f"| {' | '.join(map(str, cells))} |")
    blocks = [*lines[:2], "\n".join(lines[2:])] + (["\n".join(figures)] if rows else [])
    return "\n\n".join(blocks) + "\n"
