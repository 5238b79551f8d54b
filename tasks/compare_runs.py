"""One report on several finished runs over the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _gallery
from tasks._report import MAX_ROWS, Cell, GalleryRow, render_report
from tasks._storage import Store, open_source
from tasks.config import RestoreRun
from tasks.finish_run import RunRecord


def compare_runs(title: str, runs: Sequence[RestoreRun], records: Sequence[RunRecord], destination: str) -> str:
    """Writes index.html and runs.json to `destination`; returns the page's address."""
    results = [_rows(Store(run.destination).sub("data").url()) for run in runs]
    gallery = []
    for row_id, row in islice(_rows(runs[0].source).items(), MAX_ROWS):
        outputs = [(run, result[row_id]) for run, result in zip(runs, results, strict=True) if row_id in result]
        gallery.append(GalleryRow(row_id, tuple(_cells(row, outputs, runs[0]))))
    store = Store(destination)
    store.write("index.html", render_report(title, records, gallery, []).encode())
    store.write("runs.json", json.dumps(list(records), indent=2).encode())
    return store.url("index.html")


def _cells(
    row: Mapping[str, Any], outputs: Sequence[tuple[RestoreRun, Mapping[str, Any]]], first: RestoreRun
) -> list[Cell]:
    cells = [Cell("input", row[first.column]["bytes"], "")]
    cells += [
        Cell(run.method, out["restored"]["bytes"], _gallery.caption(out), out["identity_similarity_gt"])
        for run, out in outputs
    ]
    return cells + ([Cell("gt", row[first.gt_column]["bytes"], "")] if first.gt_column else [])


def _rows(url: str) -> dict[str, dict[str, Any]]:
    tables = [pq.read_table(store.open_input(file.path)) for store, file in open_source(url)]
    return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}
