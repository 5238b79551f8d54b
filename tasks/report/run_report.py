"""The report of a run, or of several side by side, as one self-contained HTML page.

run.json documents and encoded images go in, HTML comes out. Ids, details and paths are untrusted: the template escapes
them all, images are decoded and encoded again (which drops their metadata, too), and the page's Content-Security-Policy
forbids the network and all scripts but its own.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bfr_models.metrics.protocols import is_lower_better
from tasks.config.restore import RestoreRun
from tasks.report.gallery import example_rejects, gallery_rows
from tasks.report.page import Cell, GalleryRow, Reject, finite, image_uri, plain, printable, template
from tasks.runs.layout import REPORT
from tasks.runs.plan import Plan
from tasks.runs.record import RunRecord
from tasks.storage.redaction import redact
from tasks.storage.store import Store

Run = Mapping[str, object]
"""A run.json document."""

MAX_ROWS, MAX_CELLS = 48, 240
IMAGE_BYTES = 3_900_000  # of all images; base64 turns them into 5.2 MB


def render_report(title: str, runs: Sequence[Run], gallery: Sequence[GalleryRow], rejects: Sequence[Reject]) -> str:
    """The page as HTML, of at most about 6 MB whatever goes in."""
    page = template("report.html.j2").render(
        title=title,
        runs=[_summary(run, label) for run, label in zip(runs, _labels(runs), strict=True)],
        metrics=_metrics(runs),
        histograms=_histograms([_at(run, "statistics", "identity_similarity") for run in runs]),
        gallery=_gallery(gallery),
        rejects=_rejects(runs, rejects),
    )
    return printable(page)


def _at(document: object, *keys: str) -> Any:
    """The value at a path of keys; None if the path ends early."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, with the preset or a number added where two would be equal."""
    methods = [(plain(_at(run, "method", "name")), plain(_at(run, "method", "preset"))) for run in runs]
    names = [name for name, _ in methods]
    names = [name if names.count(name) == 1 else f"{name} ({preset})" for name, preset in methods]
    return [name if names.count(name) == 1 else f"{name} #{i}" for i, name in enumerate(names, 1)]


def _summary(run: Run, label: str) -> dict[str, Any]:
    """One run as the template reads it; `missing`: rows that are neither restored nor rejected, 0 if all is well."""
    keys = ("rows", "restored", "rejected", "faces", "shards", "accelerator_seconds", "wall_seconds")
    totals: dict[str, Any] = {key: finite(_at(run, "totals", key)) for key in keys}
    rows, restored, rejected = (totals[key] for key in keys[:3])
    missing = None if None in (rows, restored, rejected) else rows - restored - rejected
    parts = {key: _at(run, key) or {} for key in ("method", "arguments", "versions", "recogniser")}
    facts = {"label": label, "totals": totals, "missing": missing, "command": _command(run), "became": _outcomes(run)}
    return {**run, **parts, **facts, "licences": _licences(run), "figures": _figures(run)}


def _outcomes(run: Run) -> list[tuple[str, float | None]]:
    """What became of the faces, in words, each with the number of faces."""
    counts = _at(run, "outcomes")
    found = counts.items() if isinstance(counts, Mapping) else ()
    return [(plain(name).replace("_", " "), finite(count)) for name, count in found]


def _figures(run: Run) -> list[tuple[str, str]]:
    """Names of the protocol's metrics, each with its value and unit, or with the reason why it has none."""
    listed = _at(run, "protocol", "metrics")
    found = listed.items() if isinstance(listed, Mapping) else ()
    return [
        (
            plain(name),
            f"{value:.4f} {plain(_at(figure, 'unit'))}, {plain(_at(figure, 'network') or '')}".rstrip(" ,")
            if (value := finite(_at(figure, "value"))) is not None
            else f"none: {plain(_at(figure, 'why'))}",
        )
        for name, figure in found
    ]


def _licences(run: Run) -> list[dict[str, Any]]:
    """The name of each weight file, and its licence in words."""
    listed = _at(run, "licences")
    found = [terms for terms in listed if isinstance(terms, Mapping)] if isinstance(listed, list) else []
    return [
        {
            "weights": plain(terms.get("weights")),
            "licence": plain(terms.get("licence") or "not stated")
            + (", non-commercial use only" if terms.get("non_commercial") else ""),
            "non_commercial": bool(terms.get("non_commercial")),
        }
        for terms in found
    ]


def _command(run: Run) -> str:
    """The command line of this run: each argument is a flag, and so is each option of the method."""
    method = {"method": _at(run, "method", "name"), "preset": _at(run, "method", "preset"), "seed": _at(run, "seed")}
    given = {key: value for key, value in (_at(run, "arguments") or {}).items() if value not in (None, [])}
    words = ["bfr", "restore", given.pop("source", "SRC"), given.pop("destination", "DST")]
    for key, value in (method | given | dict(given.pop("options", {}))).items():
        if value is not None and value is not False and not isinstance(value, Mapping):
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
            words += [f"--{str(key).replace('_', '-')}"] + ([] if value is True else [text])
    return shlex.join(plain(word, limit=4000) for word in words)


def _rejects(runs: Sequence[Run], rejects: Sequence[Reject]) -> list[dict[str, Any]]:
    """The reject codes, most frequent first, each with its count per run and a few examples."""
    listed: dict[str, list[Reject]] = {}
    for reject in rejects:
        listed.setdefault(reject.error, []).append(reject)
    counts = [_at(run, "rejects") or {} for run in runs]
    table = []
    for code in dict.fromkeys([*(code for run in counts for code in run), *listed]):
        numbers = [finite(run.get(code)) or 0 for run in counts] or [len(listed[code])]
        table.append({"code": code, "counts": numbers, "examples": listed.get(code, [])[:3]})
    return sorted(table, key=lambda entry: -sum(entry["counts"]))


def _metrics(runs: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """Each metric of `statistics` with a score per run: {value, low, high, n, best} or {value: None, why}."""
    keys = dict.fromkeys(k for run in runs for k in (_at(run, "statistics") or {}) if not k.startswith("n_"))
    return {key: _scores(key, [_at(run, "statistics", key) for run in runs]) for key in keys}


def _scores(key: str, statistics: Sequence[object]) -> list[dict[str, Any]]:
    scores = []
    for found in statistics:
        value = finite(_at(found, "mean"))
        value = finite(_at(found, "value")) if value is None else value
        spread = {"low": finite(_at(found, "p05")), "high": finite(_at(found, "p95")), "n": _at(found, "n")}
        why = _at(found, "why") or ("not a number" if isinstance(found, Mapping) else "not measured")
        scores.append({"value": value, "why": why, "features": _at(found, "features"), **spread})
    values = [score["value"] for score in scores if score["value"] is not None]
    best = (min if is_lower_better(key) else max)(values) if len(values) > 1 else None
    return [{**score, "best": score["value"] == best} for score in scores]


def _histograms(statistics: Sequence[object]) -> dict[str, Any]:
    """The histograms with scales that all of them share, so that the eye can compare them."""
    found = [(_at(stat, "histogram") or [], _at(stat, "bin_width") or 0.05) for stat in statistics]
    edges = [edge for bins, width in found for left, _ in bins for edge in (left, left + width)] or [0, 1]
    first, last = math.floor(min(edges) * 10 + 1e-6), math.ceil(max(edges) * 10 - 1e-6)
    step = 1 if last - first <= 6 else 2 if last - first <= 12 else 5  # between ticks, in tenths
    return {
        "statistics": statistics,
        "low": first / 10,
        "span": max(last - first, 1) / 10,
        "top": _ceiling(max((count for bins, _ in found for _, count in bins), default=2)),
        "ticks": [tenth / 10 for tenth in range(first, last + 1) if tenth % step == 0],
    }


def _ceiling(count: float) -> int:
    """The next round number, for the top of an axis."""
    power = int(10 ** math.floor(math.log10(max(count, 2))))
    return next(m * power for m in (1, 2, 3, 4, 5, 6, 8, 10) if m * power >= max(count, 2))


def _gallery(rows: Sequence[GalleryRow]) -> dict[str, Any]:
    """The rows to show: as many as fit on the page, with the lowest of all rows among them."""
    names = dict.fromkeys(cell.column for row in rows for cell in row.cells)
    columns = sorted(names, key=lambda name: (name != "input", name == "gt"))  # methods keep their order
    scores = [[x for cell in row.cells if (x := finite(cell.identity)) is not None] for row in rows]
    order = sorted((min(found), i) for i, found in enumerate(scores) if found)
    lowest = {i: score for score, i in order[: min(6, max(len(order) // 5, 1))]} if len(order) > 2 else {}
    room = max(min(MAX_ROWS, MAX_CELLS // max(len(columns), 1)), 1)
    shown = sorted([*lowest, *(i for i in range(len(rows)) if i not in lowest)][:room])
    budget = IMAGE_BYTES // max(len(shown) * len(columns), 1)
    tiles = {i: _tiles(rows[i], columns, budget) for i in shown}
    entries = [{"id": rows[i].id, "lowest": lowest.get(i), "tiles": tiles[i]} for i in shown]
    return {"given": len(rows), "rows": entries}


def _tiles(row: GalleryRow, columns: Sequence[str], budget: int) -> list[dict[str, Any]]:
    """The images of a row, one for each column of the gallery."""
    cells = {cell.column: cell for cell in row.cells}
    tiles = []
    for name in columns:
        cell = cells.get(name, Cell(name, None, "not in this row"))
        tile = {"column": name, "caption": cell.caption, "identity": cell.identity, "src": None, "why": None}
        if cell.image is not None:
            try:
                tile |= image_uri(cell.image, budget)
            except Exception as error:  # Pillow can raise anything, and no image may cost the page
                tile["why"] = f"this picture cannot be decoded ({type(error).__name__})"
        tiles.append(tile)
    return tiles


def write_report(store: Store, plan: Plan, manifest: list[dict[str, Any]], record: RunRecord, run: RestoreRun) -> None:
    """Writes the page of a finished run to `report/index.html`."""
    rows = gallery_rows(store, plan, manifest, run)
    page = render_report(f"{run.method} on {redact(run.source)}", [record], rows, example_rejects(store, manifest))
    store.write(REPORT, page.encode())
