"""Closes a run whose shards are all committed: manifest, clean folders, statistics, report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bfr_models.errors import BfrError
from bfr_models.registry import methods
from tasks import _commits
from tasks._connection import redact
from tasks._gallery import example_rejects, gallery_rows
from tasks._parquet import encode_table
from tasks._report import render_report
from tasks._statistics import Totals
from tasks._storage import Store
from tasks.config import RestoreRun
from tasks.plan_shards import Plan, check_settings, latest_plan

MANIFEST = pa.schema(
    [
        ("shard", pa.string()),
        ("attempt", pa.string()),
        ("source", pa.string()),
        ("data", pa.string()),
        ("rejected", pa.string()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("restored_rows", pa.int64()),
        ("rejected_rows", pa.int64()),
    ]
)
PACKAGES = ("bfr-pipeline", "torch", "diffusers", "numpy", "pyarrow", "ray", "prefect", "Pillow", "dlib-bin")

RunRecord = dict[str, Any]


def finish_run(run: RestoreRun, started: datetime) -> RunRecord:
    """Writes manifest.parquet, run.json and the report; removes what no commit names. Returns run.json."""
    store = Store(run.destination)
    plan = latest_plan(store)
    if finished := _finished(store, plan):
        return finished | {"arguments": _arguments(run)}  # --max-rejects may be another now
    totals, manifest = Totals(), []
    live = plan.shards["id"].to_pylist()
    _require_done(plan, plan.number)
    for record in _commits.read_commits(store, live):
        totals.add(record)
        manifest.append(_manifest_row(record))
    keep = {row[folder] for row in manifest for folder in _commits.FOLDERS if row[folder]}
    orphans = _commits.orphans(store, set(live), keep)
    _require_done(latest_plan(store), plan.number)  # a newer plan is there before its first file: none of these
    _commits.vacuum(store, orphans)
    table = pa.Table.from_pylist(manifest, schema=MANIFEST)
    store.write("manifest.parquet", encode_table(table, row_group_rows=65536))
    record = _run_record(run, plan, totals, started)
    rows = gallery_rows(store, plan, manifest, run)
    page = render_report(f"{run.method} on {redact(run.source)}", [record], rows, example_rejects(store, manifest))
    store.write("report/index.html", page.encode())
    store.write("run.json", json.dumps(record, indent=2).encode())  # last: a run with run.json is finished
    return record


def _require_done(plan: Plan, number: int) -> None:
    if plan.todo_count or plan.number != number:
        raise BfrError(
            f"expected plan {number} with all its shards done, found plan {plan.number} with {plan.todo_count} to do: "
            "the same command runs elsewhere and has planned more; run it again when that is done"
        )


def _finished(store: Store, plan: Plan) -> RunRecord | None:
    """run.json, if it is that of this plan: then there is nothing to do."""
    if not store.exists("run.json"):
        return None
    record: RunRecord = json.loads(store.read("run.json"))
    return record if record.get("plan") == plan.number else None


def _manifest_row(record: _commits.Record) -> dict[str, Any]:
    files = record["files"]
    return {
        "shard": record["shard"],
        "attempt": record["attempt"],
        "source": record["source"],
        "data": files.get("data", {}).get("path"),
        "rejected": files.get("rejected", {}).get("path"),
        "sha256": files.get("data", {}).get("sha256"),
        "rows": record["rows"],
        "restored_rows": record["restored"],
        "rejected_rows": record["rejected"],
    }


def _run_record(run: RestoreRun, plan: Plan, totals: Totals, started: datetime) -> RunRecord:
    settings, now = check_settings(run), datetime.now(UTC)
    recognised, has_gt = settings["recogniser"] is not None, run.gt_column is not None
    resolved = run.resolve()
    return {
        "schema": 1,
        "state": "complete",
        "plan": plan.number,
        "method": {
            "name": run.method,
            "preset": resolved.preset.name,
            "fingerprint": resolved.fingerprint,
            "options": settings["method"]["options"],
            "weights": settings["method"]["weights"],
            "paper": methods()[run.method].paper,
            "licence": resolved.preset.licence,
        },
        "recogniser": settings["recogniser"],
        "arguments": _arguments(run),
        "seed": run.seed,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "totals": {
            "rows": totals.rows,
            "restored": totals.restored,
            "rejected": totals.rejected,
            "faces": totals.faces,
            "shards": plan.shards.num_rows,
            "accelerator_seconds": round(totals.accelerator_seconds, 3),
            "wall_seconds": round((now - started).total_seconds(), 3),
        },
        "rejects": dict(totals.rejects.most_common()),
        "outcomes": dict(totals.outcomes.most_common()),
        "statistics": totals.statistics(recognised=recognised, has_gt=has_gt),
        "started": started.isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
    }


def _arguments(run: RestoreRun) -> dict[str, Any]:
    """The run's settings, without what may be secret in its URLs."""
    places = {"source": redact(run.source), "destination": redact(run.destination)}
    return run.model_dump(mode="json") | places


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
