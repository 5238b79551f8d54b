"""`bfr curate`: a filtered, deduplicated dataset from a finished run, with its statistics computed anew.

    data/                 the kept rows, in the run's order, with the columns source_run, source_file and source_row
                          (the row in the run), and origin_file and origin_row (the row that it was restored from)
    dropped.parquet       all other rows of the run: the step that dropped each, and the row kept for a near-duplicate
    README.md             the dataset card: which files `load_dataset` takes, how they were made, licences
    curation.json         the settings, counts by step, and statistics; written last
    report/index.html     the same as a page

Every row of the run is either in `data` or in `dropped.parquet`.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from bfr_models.errors import UsageError
from tasks.config.curate import CurateRun
from tasks.curation.dataset_card import dataset_card
from tasks.curation.dedupe_scale import choose_dedupe
from tasks.curation.files import curated_schema, curated_tables, dropped_table, open_files
from tasks.curation.profiles import profile_conditions
from tasks.curation.report import duplicate_examples, render_curation
from tasks.curation.reviewed import with_reviews
from tasks.curation.selection import (
    Selection,
    best,
    ranks,
    require_sortable,
    require_strata,
    require_values,
    sample_strata,
)
from tasks.datasets.conditions import check_conditions, rows_where
from tasks.datasets.writer import encode_table
from tasks.runs.finished_run import FinishedRun, Rows, open_run
from tasks.runs.layout import CARD, CURATION, CURATION_UNFINISHED, DATA, REPORT
from tasks.runs.superseded import of_file, superseded_rows
from tasks.storage.redaction import redact
from tasks.storage.store import Store
from tasks.worker.daemon_threads import DaemonThreads

if TYPE_CHECKING:
    from tasks.curation.duplicates import Duplicates

NEAR_DUPLICATE = "near-duplicate"
DROPPED = "dropped.parquet"


def curate_run(asked: CurateRun) -> dict[str, Any]:
    """Selects the rows and writes the dataset; returns curation.json. The same curation again is a no-op. UsageError,
    before anything is written, for settings that do not fit the run, or a destination that holds something else."""
    started = time.monotonic()
    run, reviews = with_reviews(open_run(asked.source))
    conditions = _conditions(asked, run)
    request = _request(asked, run, reviews.digest)
    store = Store(asked.destination)
    if finished := _prepare(store, request):
        return finished
    selection, duplicates = _select(asked, run, conditions)
    rows = selection.kept
    if not len(rows):
        told = "; ".join(f"{step['step']}: {step['left']} left" for step in selection.funnel())
        raise UsageError(f"expected rows to keep, found none: {told}; loosen the conditions")
    store.write(CURATION_UNFINISHED, json.dumps(request, indent=2).encode())
    _clear(store)
    from tasks.scoring.subset_statistics import subset_statistics

    threads = DaemonThreads[dict[str, Any]](1)
    statistics = threads.submit(partial(subset_statistics, run, rows))  # while the files are written
    threads.close(patience=0)
    schema, source = curated_schema(run), redact(run.store.url())
    with open_files(asked.format, store, schema) as files:
        for table in curated_tables(run, rows, source, schema):
            files.write(table)
    store.write(DROPPED, encode_table(dropped_table(run, selection, duplicates), row_group_rows=65_536))
    record = {
        "schema": 1,
        "state": "complete",
        **request,
        "counts": {"rows": run.table.num_rows, "kept": len(rows), "dropped": run.table.num_rows - len(rows)},
        "outdated_decisions": len(reviews.outdated),
        "steps": selection.funnel(),
        "conditions": conditions,
        "dedupe": duplicates.facts if duplicates else None,
        "statistics": statistics.result(),
        "statistics_of_run": run.record["statistics"],
        "licences": run.record["licences"],
    }
    store.write(CARD, dataset_card(run, record, rows).encode())
    examples = duplicate_examples(duplicates.dropped, duplicates.kept, duplicates.similarity) if duplicates else []
    store.write(REPORT, render_curation(run, record, rows, examples).encode())
    record["seconds"] = round(time.monotonic() - started, 3)
    record["report"] = redact(store.url(REPORT))
    # Last: its presence means that the dataset is complete.
    store.write(CURATION, json.dumps(record, indent=2).encode())
    store.delete(CURATION_UNFINISHED)
    return record


def _conditions(asked: CurateRun, run: FinishedRun) -> list[str]:
    """The conditions that a row has to fulfil. Checks all settings, so that nothing fails half-way."""
    recogniser = (run.record["recogniser"] or {}).get("name")
    conditions = profile_conditions(asked.profile, recogniser) if asked.profile else []
    conditions += [asked.where] if asked.where is not None else []
    check_conditions(conditions, run.table.schema)
    require_sortable(run.table, asked.by)
    if asked.top_k is not None or asked.dedupe is not None:
        require_values(run.table, asked.by)
    if asked.stratify is not None:
        require_strata(run.table, asked.stratify)
    choose_dedupe(asked, run)
    return conditions


def _request(asked: CurateRun, run: FinishedRun, decided: str) -> dict[str, Any]:
    """The settings, the run, and what reviewers have decided: together they decide the result."""
    places = {"source": redact(asked.source), "destination": redact(asked.destination)}
    return {
        "arguments": asked.model_dump(mode="json") | places,
        "run": {
            "source": redact(run.store.url()),
            "method": run.record["method"]["name"],
            "fingerprint": run.record["method"]["fingerprint"],
            "plan": run.record["plan"],
            "finished": run.record["finished"],
            **({"decisions": decided} if decided else {}),
        },
    }


def _prepare(store: Store, request: dict[str, Any]) -> dict[str, Any] | None:
    """The record of this very curation, if it is done. UsageError if the destination holds something else, or if
    nothing can be written there."""
    for name in (CURATION, CURATION_UNFINISHED):
        if store.exists(name):
            found: dict[str, Any] = json.loads(store.read(name))
            if any(found.get(key) != value for key, value in request.items()):
                raise UsageError(
                    f"expected an empty folder or this same curation at {store}, found another: "
                    f"{json.dumps(found.get('arguments'))[:500]} of a run finished {found['run']['finished']}; use "
                    "another destination"
                )
            return found if name == CURATION else None
    store.require_writable()
    if others := store.list():
        raise UsageError(f"expected an empty folder at {store}, found {others[0]} and {len(others) - 1} other files; "
                         "use another destination")  # fmt: skip
    return None


def _clear(store: Store) -> None:
    """Removes what an interrupted attempt at the same curation has left behind."""
    for path in (*store.list(DATA), DROPPED, CARD, REPORT):
        store.delete(path)


def _select(asked: CurateRun, run: FinishedRun, conditions: list[str]) -> tuple[Selection, Duplicates | None]:
    selection = Selection.of(run.table.num_rows)
    if len(superseded := _superseded(run)):
        selection.drop("superseded by a newer version of its file", superseded)
    for condition, holds in zip(conditions, rows_where(run.table, conditions), strict=True):
        selection.keep(condition, holds)
    rank, duplicates = ranks(run.table, asked.by, asked.ascending), None
    if dedupe := choose_dedupe(asked, run):
        from tasks.curation.duplicates import find_duplicates

        duplicates = find_duplicates(run, selection.kept, rank, *dedupe)
        selection.drop(NEAR_DUPLICATE, duplicates.dropped)
    if asked.stratify is not None:
        selection.keep(f"{asked.stratify} is null", pc.is_valid(run.table[asked.stratify]).to_numpy())
        sample = sample_strata(run.table, selection.kept, asked.stratify, asked.per_stratum, asked.seed)
        selection.drop(f"not drawn of {asked.stratify}", np.setdiff1d(selection.kept, sample))
    if asked.top_k is not None:
        order = "lowest" if asked.ascending else "highest"
        chosen = best(selection.kept, rank, asked.top_k)
        selection.drop(f"not of the {asked.top_k} {order} {asked.by}", np.setdiff1d(selection.kept, chosen))
    return selection, duplicates


def _superseded(run: FinishedRun) -> Rows:
    """The rows whose file was packed anew since: the newer row counts."""
    found, known = np.zeros(run.table.num_rows, bool), superseded_rows(run.store)
    for file in run.files if known else ():
        rows = slice(file.start, file.stop)
        found[rows] = np.isin(run.source_rows[rows], list(of_file(file.source, known)))
    return np.flatnonzero(found)
