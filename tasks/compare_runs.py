"""Compares finished runs over the same rows: one table, one gallery with a column per method, one page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError
from tasks.config.restore import RestoreRun
from tasks.datasets.image_column import embedded_bytes
from tasks.datasets.row_ids import Key, row_ids, row_keys
from tasks.report.cards import MAX_CARDS, Cell, GalleryRow, Hero, cards_of
from tasks.report.gallery import caption, run_gallery
from tasks.report.run_report import render_report
from tasks.report.score_table import METRICS, score_table, to_latex, to_markdown
from tasks.runs.comparison import RUNS, TABLE
from tasks.runs.manifest import data_files, read_manifest
from tasks.runs.plan import latest_plan, require_finished
from tasks.runs.record import RunRecord
from tasks.runs.sealed import run_parquet
from tasks.runs.shards import from_table
from tasks.storage.store import Store

Rows = Mapping[Key, Mapping[str, Any]]


def compare_runs(
    title: str,
    runs: Sequence[RestoreRun],
    records: Sequence[RunRecord],
    destination: str,
    photo: RestoreRun | None = None,
) -> dict[str, Any]:
    """Writes index.html, table.{md,tex,json} and runs.json to `destination`; returns the table, and the page's
    address as `report`.

    Scores are compared on the rows that all runs restored, and Fréchet distances if that is all that any of them has
    restored. BfrError if the runs did not have the same rows in the same order. The page opens with a photo of the run
    `photo`, if there is one.
    """
    restored = {run.method: _restored(Store(run.destination)) for run in runs}
    _require_equal_rows(records)
    common = _common(restored)
    scores = {name: {m.key: [rows[key][m.key] for key in common] for m in METRICS} for name, rows in restored.items()}
    are_of_common = all(len(rows) == len(common) for rows in restored.values())
    of = {record["method"]["name"]: record for record in records}
    distances = {name: _distances(record["statistics"]) for name, record in of.items() if are_of_common}
    table = score_table(scores, distances) | {
        "rows": len(common),
        "rejected": {name: record["totals"]["rejected"] for name, record in of.items()},
        "why_no_distances": None if are_of_common else "each would be of other rows",
    }
    store = Store(destination)
    store.write("table.md", to_markdown(table).encode())
    store.write("table.tex", to_latex(table).encode())
    store.write(TABLE, json.dumps(table, indent=2).encode())
    gallery, opening = cards_of(_gallery(runs, common[:MAX_CARDS])), None if photo is None else _hero(photo)
    store.write("index.html", render_report(title, records, gallery, [], opening).encode())
    store.write(RUNS, json.dumps(list(records), indent=2).encode())
    return table | {"report": store.url("index.html")}


def _hero(run: RestoreRun) -> Hero | None:
    """The photo of a finished run that is expected to have gained most."""
    store = Store(run.destination)
    plan, record = require_finished(store)
    return run_gallery(store, plan, read_manifest(store), run, record).hero


def _restored(store: Store) -> Rows:
    """The scores of the restored rows, in the order of the plan."""
    columns = ["id", *(metric.key for metric in METRICS)]
    rows: list[dict[str, Any]] = []
    for path in data_files(store):
        with run_parquet(store, path) as parquet:
            rows += parquet.read(columns=columns).to_pylist()
    return dict(zip(row_keys(row["id"] for row in rows), rows, strict=True))


def _distances(statistics: Mapping[str, Any]) -> dict[str, float]:
    """FID and the other Fréchet distances that have a value."""
    found = {name: value for name, value in statistics.items() if name.startswith(("fid", "fd_"))}
    return {name: value["value"] for name, value in found.items() if value["value"] is not None}


def _common(restored: Mapping[str, Rows]) -> list[Key]:
    """The rows that all runs restored. BfrError unless they are in the same order in each."""
    shared = set.intersection(*(set(rows) for rows in restored.values()))
    orders = {name: [key for key in rows if key in shared] for name, rows in restored.items()}
    first, *others = orders
    for name in others:
        if orders[name] != orders[first]:
            raise BfrError(f"expected the rows of {name} in the order of {first}'s, found another; restore both again")
    if not shared:
        raise BfrError(f"expected rows that {', '.join(restored)} all restored, found none; see their reports")
    return orders[first]


def _require_equal_rows(records: Sequence[RunRecord]) -> None:
    counts = {record["method"]["name"]: record["totals"]["rows"] for record in records}
    if len(set(counts.values())) > 1:
        raise BfrError(f"expected runs over the same rows, found {counts}; give each the same source")


def _gallery(runs: Sequence[RestoreRun], keys: Sequence[Key]) -> list[GalleryRow]:
    first = runs[0]
    inputs = _whole_rows(_source_tables(first), keys)
    outputs = [(run, _whole_rows(_data_tables(Store(run.destination)), keys)) for run in runs]
    rows = []
    for key in keys:
        source = inputs.get(key, {})
        cells = [Cell("input", embedded_bytes(source.get(first.column)), "")]
        for run, found in outputs:
            row = found[key]
            cells.append(Cell(run.method, row["restored"]["bytes"], caption(row), row["identity_similarity_gt"]))
        if first.gt_column:
            cells.append(Cell("gt", embedded_bytes(source.get(first.gt_column)), ""))
        rows.append(GalleryRow(key[0], tuple(cells)))
    return rows


def _whole_rows(tables: Iterator[tuple[list[str], pa.Table]], keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """The rows with these keys, images included; reads no further than the last of them."""
    found: dict[Key, dict[str, Any]] = {}
    wanted, seen = set(keys), Counter[str]()
    for ids, table in tables:
        for index, row_id in enumerate(ids):
            key = (row_id, seen[row_id])
            seen[row_id] += 1
            if key in wanted:
                found[key] = table.slice(index, 1).to_pylist()[0]
        if len(found) == len(wanted):
            break
    return found


def _source_tables(run: RestoreRun) -> Iterator[tuple[list[str], pa.Table]]:
    """The source, shard by shard, as the run saw it."""
    for shard in from_table(latest_plan(Store(run.destination)).shards):
        with shard.with_secrets(run.source).open() as source:
            table = pq.ParquetFile(source).read_row_groups(range(shard.row_group_start, shard.row_group_stop))
        yield row_ids(shard.name, shard.first_row, table), table


def _data_tables(store: Store) -> Iterator[tuple[list[str], pa.Table]]:
    for path in data_files(store):
        with run_parquet(store, path, whole=True) as parquet:
            table = parquet.read()
        yield table["id"].to_pylist(), table
