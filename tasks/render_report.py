"""Renders the report of a finished run again, and its dataset card."""

from __future__ import annotations

from typing import Any

from tasks.config.restore import RestoreRun
from tasks.report.run_card import write_card
from tasks.report.run_report import write_report
from tasks.runs.finished_run import current_run
from tasks.runs.layout import REPORT
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import require_finished
from tasks.storage.redaction import redact


def render_report(destination: str) -> dict[str, Any]:
    """Renders the report of a finished run again, or of the current one of generations; returns its address. UsageError
    if the run is not finished."""
    store = current_run(destination)
    plan, record = require_finished(store)
    manifest = read_manifest(store)
    write_report(store, plan, manifest, record, RestoreRun.model_validate(record["arguments"]))
    write_card(store, record)
    return {"report": redact(store.url(REPORT))}
