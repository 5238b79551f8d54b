"""The rows that a run is told to restore: those of an assessment, of a review, or of any Parquet with their ids, by a
condition.

Only these rows are planned; all others stay in the source as they are, and run.json says how many. So rows in = rows
out holds for what was selected.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.config.restore import RestoreRun
from tasks.datasets.conditions import rows_where
from tasks.datasets.row_groups import plain_columns, values
from tasks.runs.redo import redo_rows, reviewed_run
from tasks.runs.source import open_source
from tasks.storage.redaction import redact
from tasks.storage.store import FileVersion, Store

ASSESSMENT, ASSESSMENT_RECORD = "assessment", "assess.json"

ASSESSED = ("id", "outcome", "faces_found")
"""The columns of an assessment that a selection without a condition reads."""
CHANGED = ("restored", "corrected", "not_judged")
"""The outcomes of an assessment that a restore would change: what is selected without a condition."""


@dataclass(frozen=True)
class SelectedRows:
    """The ids of rows to restore."""

    ids: frozenset[str]
    rows: int  # of the assessment with these ids: an id may be there more than once
    among: int  # rows of the assessment
    condition: str | None
    faces: int | None = None  # that an assessment found in them
    outcomes: Mapping[str, int] = field(default_factory=dict)  # of their pictures, as it foresees them

    @property
    def description(self) -> dict[str, Any]:
        """What decides the rows of a run, and how many were left out."""
        digest = hashlib.sha256("\0".join(sorted(self.ids)).encode("utf-8", "surrogatepass"))
        return {
            "sha256": digest.hexdigest(),
            "condition": self.condition,
            "selected": self.rows,
            "left_out": self.among - self.rows,
        }


def selected_rows(run: RestoreRun) -> SelectedRows | None:
    """The rows that the run is limited to; None if it takes all. UsageError if there are none, or nothing to select
    from."""
    if run.select is None:
        return None
    return _selected(run.select, run.select_where, tuple(file for _, file in _files(run.select)))


@lru_cache(maxsize=1)  # asked for twice: for the run's settings, and for its plan
def _selected(url: str, condition: str | None, _as_of: Sequence[FileVersion]) -> SelectedRows:
    reviewed = reviewed_run(url)
    if reviewed is None:
        tables = [_read(store, file, with_all=condition is not None) for store, file in _files(url)]
        table = pa.concat_tables(tables, promote_options="permissive")
    else:
        table = redo_rows(reviewed)
    ids = [row_id if row_id is None else str(row_id) for row_id in values(table["id"])]
    if condition is not None:
        kept = rows_where(table, [condition])[0].tolist()
    elif "outcome" in table.column_names:
        kept = pc.is_in(table["outcome"], pa.array(CHANGED)).to_pylist()
    else:
        kept = [True] * len(ids)  # a list of ids that somebody else has made
    found = frozenset(row_id for row_id, is_kept in zip(ids, kept, strict=True) if is_kept and row_id is not None)
    if not found:
        told = condition or f"outcome in {CHANGED}"
        raise UsageError(f"expected rows at {redact(url)} for {told}, found none among {len(ids)}; nothing to restore")
    rows = sum(row_id in found for row_id in ids)
    return SelectedRows(found, rows, len(ids), condition, *_assessed(table.filter(pa.array(kept))))


def _assessed(table: pa.Table) -> tuple[int | None, dict[str, int]]:
    """How many faces, and the pictures by outcome; neither in a table that is no assessment's."""
    if not {"faces_found", "outcome"} <= set(table.column_names):
        return None, {}
    return sum(table["faces_found"].to_pylist()), dict(Counter(table["outcome"].to_pylist()).most_common())


def _files(url: str) -> Iterator[tuple[Store, FileVersion]]:
    store = Store(url)
    if reviewed_run(url) is not None:
        yield from ((store, file) for file in store.versions() if file.path.endswith(".json"))
    elif url.endswith(".parquet"):
        yield from open_source(url)
    elif store.exists(ASSESSMENT_RECORD):
        yield from ((store, file) for file in store.versions(ASSESSMENT) if file.path.endswith(".parquet"))
    elif store.list(ASSESSMENT):
        raise UsageError(
            f"expected a finished assessment at {redact(url)}, found one without {ASSESSMENT_RECORD}; run the "
            "`bfr assess` command that started it again"
        )
    else:
        yield from open_source(url)


def _read(store: Store, file: FileVersion, *, with_all: bool) -> pa.Table:
    with store.open_input(file.path) as opened:
        parquet = pq.ParquetFile(opened)
        names = parquet.schema_arrow.names
        if "id" not in names:
            raise UsageError(
                f"expected a column `id` in {redact(store.url(file.path))} to select rows by, found "
                f"{', '.join(names)[:200]}"
            )
        wanted = plain_columns(parquet.schema_arrow) if with_all else [n for n in ASSESSED if n in names]
        return parquet.read(columns=wanted)


def picked_rows(ids: Collection[str], of_file: Iterator[str]) -> list[int]:
    """The numbers of a file's rows, by their ids in order, that are among `ids`."""
    return [row for row, row_id in enumerate(of_file) if row_id in ids]
