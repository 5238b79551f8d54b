"""The demo: two real portraits, degraded many times, restored with every method, scored and reported; and one whole
photograph, restored and written back as a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import with_fallback
from flows.restore_dataset import restore_dataset_with_fallback, restore_without_prefect
from tasks.compare_runs import compare_runs
from tasks.config.evaluate import AS_PAPERS_DO
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.engine.ray_session import joined_ray
from tasks.export_run import export_run
from tasks.make_demo_faces import make_demo_faces, make_demo_photo
from tasks.pack_pictures import files_of_run
from tasks.runs.record import RunRecord

METHODS = ("difface", "diffbfr", "clr_face")


@flow(name="demo")
def run_demo(out: str, methods: list[str] | None = None) -> dict[str, Any]:
    """Make `out`/lq, restore it with each method into `out`/<method>, and compare them in `out`/report.

    The photograph is `out`/scans, its run `out`/photos, and the restored file is in `out`/files.
    """
    own_run()
    return _demo(out, methods, restore_dataset_with_fallback)


def run_demo_with_fallback(out: str, methods: list[str] | None = None) -> dict[str, Any]:
    """`run_demo`; if Prefect itself fails, continues without it. Ray starts beside Prefect, once for all methods."""
    with joined_ray():
        return with_fallback(lambda: run_demo(out, methods), lambda: _demo(out, methods, restore_without_prefect))


def _demo(out: str, methods: list[str] | None, restore: Callable[[RestoreRun], RunRecord]) -> dict[str, Any]:
    runs = [_run(out, method) for method in methods or METHODS]
    for run in runs:
        resolve_run(run)  # report an unknown name before any work starts
    make_demo_faces(f"{out}/lq")
    records = {run.method: restore(run) for run in runs}
    photo = _restore_photo(out, restore)
    compared = compare_runs("Two portraits", runs, list(records.values()), f"{out}/report", photo)
    return {"runs": records, "files": f"{out}/files", "report": compared["report"]}


def _restore_photo(out: str, restore: Callable[[RestoreRun], RunRecord]) -> RestoreRun:
    """As `bfr restore` and `bfr export` do it for a folder of scans."""
    make_demo_photo(f"{out}/scans")
    run = RestoreRun(
        source=f"{out}/scans", destination=f"{out}/photos", method=METHODS[0], input="photos", engine="local"
    )
    files = files_of_run(run.source, run.destination)
    if files is not None:
        run = run.model_copy(update={"source": files.url})
        files.pack()
    restore(run)
    export_run(run.destination, f"{out}/files")
    return run


def _run(out: str, method: str) -> RestoreRun:
    places = {"source": f"{out}/lq", "destination": f"{out}/{method}"}
    return RestoreRun(**places, method=method, gt_column="gt", shard_rows=4, **AS_PAPERS_DO)
