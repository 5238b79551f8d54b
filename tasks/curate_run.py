"""`bfr curate`: a filtered, deduplicated dataset from a finished run, with its statistics computed anew.

    data/                 the kept rows, in the run's order, with the columns source_run, source_file and source_row,
                          and origin_file and origin_row: where the run had the row from
    dropped.parquet       every other row of the run: which step dropped it, and of a near-duplicate for which row
    README.md             the dataset card: which files `load_dataset` takes, how they were made, licences
    curation.json         what was asked for, counts by step, statistics; written last
    report/index.html     the same for people

Rows of the run = rows in `data` + rows in `dropped.parquet`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bfr_models.errors import UsageError
from tasks.config.restore import Url
from tasks.curation.conditions import check_condition, rows_where
from tasks.curation.dataset_card import dataset_card
from tasks.curation.files import curated_schema, curated_tables, open_files
from tasks.curation.near_duplicates import cosines, neighbourhoods
from tasks.curation.profiles import profile_conditions
from tasks.curation.report import duplicate_examples, render_curation
from tasks.curation.row_vectors import LOOKS, choose_look, row_vectors
from tasks.curation.selection import (
    NOT_DROPPED,
    Selection,
    best,
    ranks,
    require_sortable,
    require_strata,
    require_values,
    sample_strata,
)
from tasks.datasets.writer import encode_table
from tasks.engine.daemon_threads import DaemonThreads
from tasks.runs.finished_run import FinishedRun, Rows, open_run
from tasks.scoring.subset_statistics import subset_statistics
from tasks.storage.filesystem import redact
from tasks.storage.store import Store

RECORD, UNFINISHED = "curation.json", "curation.unfinished.json"
DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("kept_id", pa.string()),
        ("similarity", pa.float32()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("origin_file", pa.string()),
        ("origin_row", pa.int64()),
        ("kept_file", pa.string()),
        ("kept_row", pa.int64()),
    ]
)
NEAR_DUPLICATE = "near-duplicate"


class CurateRun(BaseModel):
    """One `bfr curate`. Its steps, in this order: profile, where, dedupe, stratify, top_k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="a finished run, or generations of which the current one is taken")
    destination: Url = Field(description="where the dataset goes")
    where: str | None = Field(None, description="SQL condition over the run's columns")
    profile: str | None = Field(None, description="ready-made quality gates: archive or training-set")
    dedupe: float | None = Field(None, gt=0, le=1, description="cosine from which two rows are near-duplicates")
    dedupe_by: str = Field("auto", description="embedding, inception or perceptual; the first that the run has")
    by: str = Field("identity_similarity", description="the column that says which rows are better")
    ascending: bool = Field(False, description="the lowest value of `by` is the best")
    top_k: int | None = Field(None, ge=1, description="keep the best so many")
    stratify: str | None = Field(None, description="column: as many rows of each of its values; none without one")
    per_stratum: int | None = Field(None, ge=1, description="rows of each value; as many as the rarest has by default")
    seed: int = Field(0, description="of the sample")
    format: Literal["parquet", "webdataset", "folder"] = "parquet"

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if self.per_stratum is not None and self.stratify is None:
            raise ValueError("expected a column to stratify by with per_stratum, found none")
        if self.dedupe_by not in ("auto", *LOOKS):
            raise ValueError(f"unknown dedupe_by {self.dedupe_by!r}; known: auto, {', '.join(LOOKS)}")
        if f"{self.destination}/".startswith(f"{self.source.rstrip('/')}/"):
            raise ValueError(f"expected a destination outside of the run, found {redact(self.destination)}")
        return self


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Rows that were dropped, and for each the row that is kept in its place; their cosines."""

    dropped: Rows
    kept: Rows
    similarity: NDArray[np.float32]
    facts: dict[str, Any]


def curate_run(asked: CurateRun) -> dict[str, Any]:
    """Does it all; returns curation.json. The same curation again is a no-op; UsageError, before anything is written,
    for what cannot be done, and for a destination that holds something else."""
    started = time.monotonic()
    run = open_run(asked.source)
    conditions = _conditions(asked, run)
    request = _request(asked, run)
    store = Store(asked.destination)
    if finished := _prepare(store, request):
        return finished
    selection, duplicates = _select(asked, run, conditions)
    rows = selection.kept
    if not len(rows):
        told = "; ".join(f"{step['step']}: {step['left']} left" for step in selection.funnel())
        raise UsageError(f"expected rows to keep, found none: {told}; ask for less")
    store.write(UNFINISHED, json.dumps(request, indent=2).encode())
    _clear(store)
    threads = DaemonThreads[dict[str, Any]](1)
    statistics = threads.submit(partial(subset_statistics, run, rows))  # meanwhile
    threads.close(patience=0)
    schema, source = curated_schema(run), redact(run.store.url())
    with open_files(asked.format, store, schema) as files:
        for table in curated_tables(run, rows, source, schema):
            files.write(table)
    store.write("dropped.parquet", encode_table(_dropped_table(run, selection, duplicates), row_group_rows=65_536))
    record = {
        "schema": 1,
        "state": "complete",
        **request,
        "counts": {"rows": run.table.num_rows, "kept": len(rows), "dropped": run.table.num_rows - len(rows)},
        "steps": selection.funnel(),
        "conditions": conditions,
        "dedupe": duplicates.facts if duplicates else None,
        "statistics": statistics.result(),
        "statistics_of_run": run.record["statistics"],
        "licences": run.record["licences"],
    }
    store.write("README.md", dataset_card(run, record, rows).encode())
    examples = duplicate_examples(duplicates.dropped, duplicates.kept, duplicates.similarity) if duplicates else []
    store.write("report/index.html", render_curation(run, record, rows, examples).encode())
    record["seconds"] = round(time.monotonic() - started, 3)
    record["report"] = redact(store.url("report/index.html"))
    store.write(RECORD, json.dumps(record, indent=2).encode())  # last: a dataset with it is whole
    store.delete(UNFINISHED)
    return record


def _conditions(asked: CurateRun, run: FinishedRun) -> list[str]:
    """All that a row has to fulfil; everything that was asked for is checked here."""
    recogniser = (run.record["recogniser"] or {}).get("name")
    conditions = profile_conditions(asked.profile, recogniser) if asked.profile else []
    conditions += [asked.where] if asked.where is not None else []
    for condition in conditions:
        check_condition(condition, run.table.schema)
    require_sortable(run.table, asked.by)
    if asked.top_k is not None or asked.dedupe is not None:
        require_values(run.table, asked.by)
    if asked.stratify is not None:
        require_strata(run.table, asked.stratify)
    if asked.dedupe_by == "embedding" and not run.record["measures"]["keep_embeddings"]:
        raise UsageError("expected a run with --keep-embeddings for --dedupe-by embedding, found one without; "
                         "use --dedupe-by perceptual")  # fmt: skip
    if asked.dedupe_by == "inception" and not run.record["measures"]["inception"]:
        raise UsageError("expected a run with the Inception's features for --dedupe-by inception, found one without; "
                         "use --dedupe-by perceptual")  # fmt: skip
    return conditions


def _request(asked: CurateRun, run: FinishedRun) -> dict[str, Any]:
    """What decides the result."""
    places = {"source": redact(asked.source), "destination": redact(asked.destination)}
    return {
        "arguments": asked.model_dump(mode="json") | places,
        "run": {
            "source": redact(run.store.url()),
            "method": run.record["method"]["name"],
            "fingerprint": run.record["method"]["fingerprint"],
            "plan": run.record["plan"],
            "finished": run.record["finished"],
        },
    }


def _prepare(store: Store, request: dict[str, Any]) -> dict[str, Any] | None:
    """The record of this very curation, if it is done. UsageError where the destination has something else."""
    for name in (RECORD, UNFINISHED):
        if store.exists(name):
            found: dict[str, Any] = json.loads(store.read(name))
            if any(found.get(key) != value for key, value in request.items()):
                raise UsageError(
                    f"expected an empty folder or this same curation at {store!r}, found another: "
                    f"{json.dumps(found.get('arguments'))[:500]} of a run finished {found['run']['finished']}; use "
                    "another destination"
                )
            return found if name == RECORD else None
    if others := store.list():
        raise UsageError(f"expected an empty folder at {store!r}, found {others[0]} and {len(others) - 1} other files; "
                         "use another destination")  # fmt: skip
    return None


def _clear(store: Store) -> None:
    """Removes what an interrupted attempt at the same curation has left."""
    for path in store.list():
        if path != UNFINISHED:
            store.delete(path)


def _select(asked: CurateRun, run: FinishedRun, conditions: list[str]) -> tuple[Selection, Duplicates | None]:
    selection = Selection.of(run.table.num_rows)
    for condition in conditions:
        selection.keep(condition, rows_where(run.table, condition))
    rank, duplicates = ranks(run.table, asked.by, asked.ascending), None
    if asked.dedupe is not None:
        duplicates = _find_duplicates(asked, run, selection.kept, rank, asked.dedupe)
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


def _find_duplicates(asked: CurateRun, run: FinishedRun, rows: Rows, rank: Rows, threshold: float) -> Duplicates:
    """Of each group of near-duplicates all but the best."""
    look = choose_look(run) if asked.dedupe_by == "auto" else asked.dedupe_by
    seen = row_vectors(run, rows, look)
    found = neighbourhoods(seen.vectors, threshold)
    order = np.lexsort((rank[seen.rows], found.labels))
    labels, first, sizes = np.unique(found.labels[order], return_index=True, return_counts=True)
    heads = order[first]  # the best place of each group
    head_of = heads[np.searchsorted(labels, found.labels)]
    dropped = np.flatnonzero(head_of != np.arange(len(seen.rows)))
    facts = {
        "threshold": threshold,
        **seen.source,
        **found.index,
        "without_vector": len(rows) - len(seen.rows),
        "groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max(initial=0)),
        "dropped": len(dropped),
    }
    similarity = cosines(seen.vectors, dropped, head_of[dropped])
    return Duplicates(seen.rows[dropped], seen.rows[head_of[dropped]], similarity, facts)


def _dropped_table(run: FinishedRun, selection: Selection, duplicates: Duplicates | None) -> pa.Table:
    rows = np.flatnonzero(selection.reasons != NOT_DROPPED)
    heads, similarity = np.full(run.table.num_rows, -1), np.full(run.table.num_rows, np.nan, np.float32)
    if duplicates is not None:
        heads[duplicates.dropped], similarity[duplicates.dropped] = duplicates.kept, duplicates.similarity
    heads = heads[rows]
    is_alone = heads < 0
    kept_files, kept_rows = run.places(heads)
    files, places = run.places(rows)
    origins, origin_rows = run.origins(rows)
    columns = {
        "id": pa.array([run.ids[row] for row in rows], pa.string()),
        "reason": pa.array([selection.names[number] for number in selection.reasons[rows]], pa.string()),
        "kept_id": pa.array([run.ids[row] for row in heads], pa.string(), mask=is_alone),
        "similarity": pa.array(similarity[rows], mask=is_alone),
        "source_file": pa.array(files, pa.string()),
        "source_row": pa.array(places, pa.int64()),
        "origin_file": pa.array(origins, pa.string()),
        "origin_row": pa.array(origin_rows, pa.int64()),
        "kept_file": pa.array(kept_files, pa.string(), mask=is_alone),
        "kept_row": pa.array(kept_rows, pa.int64(), mask=is_alone),
    }
    return pa.Table.from_pydict(columns, DROPPED)
