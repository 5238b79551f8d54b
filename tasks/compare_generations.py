"""Compares a new generation with the current one, row by row, and decides whether it may become current."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.config.reprocess import ReprocessRun
from tasks.datasets.row_ids import row_keys
from tasks.report.cards import Cell, GalleryRow, cards_of
from tasks.report.gallery import caption
from tasks.report.run_report import render_report
from tasks.runs.finished_run import FinishedRun, Rows, open_last_finished
from tasks.runs.layout import RECORD, comparison_file, generation_folder
from tasks.runs.pointer import Comparison, address, read_pointer
from tasks.runs.sealed import read_json
from tasks.scoring.subset_statistics import subset_statistics
from tasks.storage.redaction import redact
from tasks.storage.store import Store

GALLERY_ROWS = 24
_IDENTITIES = ("identity_similarity_gt", "identity_similarity")  # the first that both have measured decides


def compare_generations(run: ReprocessRun, new: str) -> Comparison | None:
    """Compares a generation with the current one, unless that has been done already. None if there is no other
    generation to compare with."""
    store = Store(run.destination)
    old = read_pointer(store).generation
    if old is None or old == new:
        return None
    path = comparison_file(old, new)
    records = [read_json(store.sub(generation_folder(name)), RECORD) for name in (old, new)]
    found = read_json(store, path) if store.exists(path) else {}
    is_new = not _basis(run, records).items() <= found.items()
    return Comparison(old, (_compare(run, store, old, new) if is_new else found)["report"], is_new)


def _compare(run: ReprocessRun, store: Store, old: str, new: str) -> dict[str, Any]:
    """Compares two generations as they were last finished; writes comparisons/<old>..<new>.{json,html}.

    The statistics cover the rows that both have restored. `reasons` say why the new generation must not become current,
    by the run's `max_identity_drop`, `max_fid_rise` and `max_rejects`; they are empty if it may. `notes` name what is
    not compared, because one of the two has not measured it, or another network has.
    """
    olds, news = (open_last_finished(address(run.destination, name)) for name in (old, new))
    rows = _common(olds.ids, news.ids)
    sides = [
        subset_statistics(side, which) if len(which) else {} for side, which in zip((olds, news), rows, strict=True)
    ]
    reasons, notes = _judge(run, [olds.record, news.record], sides)
    if not olds.files:
        notes.append(f"nothing is compared: {old} has no restored rows")
    elif not len(rows[0]):
        reasons.append("no row was restored in both")
    found = {
        "old": old,
        "new": new,
        "rows": len(rows[0]),
        "rejected": [side.record["totals"]["rejected"] for side in (olds, news)],
        "statistics": {"old": sides[0], "new": sides[1]},
        **_basis(run, [olds.record, news.record]),
        "reasons": reasons,
        "notes": notes,
        "report": redact(store.url(comparison_file(old, new, "html"))),
    }
    records = [side.record | {"statistics": stats} for side, stats in zip((olds, news), sides, strict=True)]
    records[1] |= {"warnings": [*records[1].get("warnings", ()), *reasons, *notes]}
    gallery = cards_of(list(_gallery((old, new), (olds, news), rows))) if len(rows[0]) else []
    store.write(comparison_file(old, new, "html"), render_report(f"{old} → {new}", records, gallery, []).encode())
    store.write(comparison_file(old, new), json.dumps(found, indent=2).encode())
    return found


def _basis(run: ReprocessRun, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a comparison depends on: while this is unchanged, so is the result."""
    return {
        "finished": [[record["plan"], record["finished"]] for record in records],
        "limits": run.model_dump(include={"max_identity_drop", "max_fid_rise", "max_rejects"}),
    }


def _common(old: Sequence[str], new: Sequence[str]) -> tuple[Rows, Rows]:
    """The rows that both have, as row numbers of each, matched by id (and by position among equal ids)."""
    places = {key: row for row, key in enumerate(row_keys(new))}
    pairs = [(row, places[key]) for row, key in enumerate(row_keys(old)) if key in places]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _judge(
    run: ReprocessRun, records: Sequence[Mapping[str, Any]], sides: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    reasons, notes = [], []
    rejected = [record["totals"]["rejected"] / record["totals"]["rows"] for record in records]
    if rejected[1] - rejected[0] > run.max_rejects:
        reasons.append(
            f"rejected rows rose from {rejected[0]:.1%} to {rejected[1]:.1%}; at most {run.max_rejects:.1%} more are "
            "allowed"
        )
    before, after = map(_values, sides)
    both = [name for name in before if name in after]
    identity = next((name for name in _IDENTITIES if name in both), None)
    if records[0]["recogniser"] != records[1]["recogniser"] or not before.keys() & set(_IDENTITIES):
        notes.append("identity is not compared: it was not measured in both, by the same recogniser")
    elif identity is None:
        reasons.append("identity was measured before, and could be measured in no row now, by the same recogniser")
    elif (drop := before[identity] - after[identity]) > run.max_identity_drop:
        reasons.append(
            f"{identity} fell by {drop:.4f} from {before[identity]:.4f} to {after[identity]:.4f}; "
            f"at most {run.max_identity_drop:g} is allowed"
        )
    distances = [name for name in both if name.startswith(("fid", "fd_"))]
    if not distances:
        notes.append("no Fréchet distance is compared: it was not measured in both")
    for name in distances:
        if any(sides[0][name].get(key) != sides[1][name].get(key) for key in ("sha256", "reference")):
            notes.append(f"{name} is not compared: other features, or another reference")
        elif after[name] > before[name] * (1 + run.max_fid_rise):
            reasons.append(
                f"{name} rose from {before[name]:.4f} to {after[name]:.4f}; at most {run.max_fid_rise:.0%} is allowed"
            )
    return reasons, notes


def _values(statistics: Mapping[str, Any]) -> dict[str, float]:
    """The means and distances that were measured, by name."""
    found = {name: s.get("mean", s.get("value")) for name, s in statistics.items() if isinstance(s, Mapping)}
    return {name: value for name, value in found.items() if value is not None}


def _gallery(names: Sequence[str], runs: Sequence[FinishedRun], rows: tuple[Rows, Rows]) -> Iterator[GalleryRow]:
    """The rows that lost most identity similarity; the first rows if none was measured."""
    before, after = (_identities(side, which) for side, which in zip(runs, rows, strict=True))
    worst = np.argsort(after - before, kind="stable")[:GALLERY_ROWS]
    cells = [_cells(name, side, which[worst]) for name, side, which in zip(names, runs, rows, strict=True)]
    for a, b in zip(*(which[worst].tolist() for which in rows), strict=True):
        yield GalleryRow(runs[0].ids[a], (cells[0][a], cells[1][b]))


def _identities(run: FinishedRun, rows: Rows) -> NDArray[np.float64]:
    return run.table["identity_similarity"].to_numpy().astype(np.float64)[rows]


def _cells(name: str, run: FinishedRun, rows: Rows) -> dict[int, Cell]:
    """The gallery cell of each row."""
    columns = ["restored", "identity_similarity", "identity_similarity_gt", "psnr"]
    return {
        row: Cell(name, values["restored"]["bytes"], caption(values), values["identity_similarity"])
        for here, table in run.read(np.sort(rows), columns)
        for row, values in zip(here.tolist(), table.to_pylist(), strict=True)
    }
