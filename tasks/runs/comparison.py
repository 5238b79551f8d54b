"""What a comparison of methods must be before any of its runs begins, and which of it is done already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bfr_models.degradation.presets import preset_of_row
from tasks.config.degrade import DegradeRun
from tasks.config.evaluate import EvaluateRun
from tasks.config.ray_place import require_ray_place
from tasks.config.resolve import resolve_run
from tasks.runs.listing import list_source
from tasks.runs.record import RunRecord
from tasks.runs.source import open_source
from tasks.runs.spec import check_destination
from tasks.storage.redaction import redact
from tasks.storage.store import Store

NOTE = "lq.json"  # beside the degraded faces: how they were made
TABLE, RUNS = "table.json", "runs.json"  # of a comparison; the latter is written last


def check_comparison(run: EvaluateRun) -> None:
    """UsageError, before anything is written, for an unknown method, preset or degradation, a source that cannot be
    read, a column that is not there, and a destination that other runs have."""
    if run.engine == "ray":
        require_ray_place()
    if run.degrade is not None:
        preset_of_row(run.degrade, 0)
    for restoration in run.restorations():
        check_destination(resolve_run(restoration), Store(restoration.destination))
    given = {"source": run.source, "column": run.column, "gt_column": run.gt_column}
    list_source(restoration.model_copy(update=given))


def is_degraded(run: DegradeRun) -> bool:
    """Whether the destination was made with the same settings from the same source files."""
    store = _beside(run)
    return store.exists(NOTE) and json.loads(store.read(NOTE)) == _made(run)


def note_degraded(run: DegradeRun) -> None:
    """Notes that it has been."""
    _beside(run).write(NOTE, json.dumps(_made(run), indent=2).encode())


def finished_comparison(store: Store, records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """The table of a comparison in `store`, with the page's address as `report`, if it is of these very runs."""
    if not (store.exists(RUNS) and json.loads(store.read(RUNS)) == json.loads(json.dumps(records))):
        return None
    table: dict[str, Any] = json.loads(store.read(TABLE))
    return table | {"report": store.url("index.html")}


def _beside(run: DegradeRun) -> Store:
    return Store(run.destination.rstrip("/").rpartition("/")[0])


def _made(run: DegradeRun) -> dict[str, Any]:
    return {
        **run.model_dump(exclude={"source", "destination", "overwrite"}),
        "source": redact(run.source),
        "files": [[file.name, file.version] for _, file in open_source(run.source)],
    }
