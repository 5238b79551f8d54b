"""Estimates what a run would take (`bfr restore --plan`): restores a sample and writes nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from bfr_models.device import local_device
from tasks.config.resolve import ResolvedRun
from tasks.runs.face_sizes import face_sizes, too_small
from tasks.runs.live_shards import shards_to_be
from tasks.runs.selected_rows import SelectedRows, selected_rows
from tasks.runs.spec import check_destination
from tasks.storage.store import Store
from tasks.worker.job import make_job
from tasks.worker.shard_worker import Sample, ShardWorker

SAMPLE_ROWS = 16


def estimate_run(resolved: ResolvedRun) -> dict[str, Any]:
    """Counts rows and shards, times a sample on this machine, and extrapolates time and storage for the rest.

    Where the rows are those of an assessment, it is known how many faces they hold and what will become of them.
    """
    run, store = resolved.run, Store(resolved.run.destination)
    check_destination(resolved, store)
    shards, done = shards_to_be(run, store)
    todo = [shard for shard in shards if shard.commit not in done]
    rows = sum(shard.rows for shard in todo)
    workers = run.actors or 1
    facts: dict[str, Any] = {
        "rows": sum(shard.rows for shard in shards),
        "shards": len(shards),
        "files": len({shard.source for shard in shards}),
        "rows_to_do": rows,
        "shards_to_do": len(todo),
        "workers": workers,
        "warnings": [resolved.care.warning] if resolved.care.warning else [],
    }
    if not todo:
        return facts | {"seconds": 0.0, "bytes": 0}
    worker = ShardWorker(make_job(resolved, local_device(), None))
    worker.load()
    with closing(worker):
        worker.sample(todo[0], 1)  # warm-up, not timed: the first call of a network is slow
        sample = worker.sample(todo[0], SAMPLE_ROWS)
    sizes = face_sizes(sample.sides, resolved.method.preset.size)
    if run.task == "restore" and (warning := too_small(resolved.method, sizes)):
        facts["warnings"].append(warning)
    return facts | {"face_sizes": sizes} | _extrapolated(sample, rows, workers, selected_rows(run))


def _extrapolated(sample: Sample, rows: int, workers: int, selected: SelectedRows | None) -> dict[str, Any]:
    """A picture takes as long as it has faces: the first ones may have more or fewer of them than the others."""
    per_row = sample.seconds / max(sample.restored, 1)
    if selected and selected.faces and sample.sides.n:
        per_row *= (selected.faces / selected.rows) / (sample.sides.n / sample.rows)
    return {
        "assessed": None if selected is None else {"faces": selected.faces, "outcomes": selected.outcomes},
        "sample_rows": sample.rows,
        "sample_rejected": sample.rows - sample.restored,
        "sample_outcomes": sample.outcomes,
        "seconds_per_row": round(per_row, 4),
        "seconds": round(per_row * rows / workers, 1),
        "bytes": round(sample.encoded_bytes / max(sample.restored, 1) * rows),
    }
