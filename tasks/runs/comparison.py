"""What a comparison of methods must be before any of its runs begins."""

from __future__ import annotations

from bfr_models.degradation.presets import preset_of_row
from tasks.config.evaluate import EvaluateRun
from tasks.config.ray_place import require_ray_place
from tasks.config.resolve import resolve_run
from tasks.runs.listing import list_source
from tasks.runs.spec import check_destination
from tasks.storage.store import Store


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
