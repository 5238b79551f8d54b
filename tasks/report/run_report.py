"""The report of a run, or of several side by side, as one self-contained HTML page.

run.json documents and encoded images go in, HTML comes out. Ids, details and paths are untrusted: the template escapes
them all, images are decoded and encoded again (which drops their metadata, too), and the page's Content-Security-Policy
forbids the network and all scripts but its own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bfr_models.metrics.identity_scale import scale_of
from bfr_models.metrics.protocols import is_lower_better
from tasks.config.fields import OPTION_FLAGS
from tasks.config.restore import RestoreRun
from tasks.report.cards import Card, Hero, Photo, Reject, in_order
from tasks.report.gallery import example_rejects, run_gallery
from tasks.report.page import finite, plain, printable, template
from tasks.report.plots import KINDS, plots
from tasks.runs.layout import REPORT
from tasks.runs.outcomes import outcome_word
from tasks.runs.plan import Plan
from tasks.runs.record import RunRecord
from tasks.runs.timings import IDLE, STAGES
from tasks.storage.redaction import redact
from tasks.storage.store import Store

Run = Mapping[str, object]
"""A run.json document."""

SORTED_BY = {
    "identity": ("least certain identity first", "up"),
    "gain": ("most expected gain first", "down"),
    "sharpness": ("most sharpened first", "down"),
    "size": ("smallest face first", "up"),
    "seconds": ("slowest first", "down"),
}


_FLAGS = {"effort": "quality"}  # of `bfr restore`, where they are not called as the argument
_NO_FLAGS = ("retire_deleted", "leave_out_damaged")  # of `bfr reprocess` alone: they decide nothing about a row

PARTS = ("report.html.j2", "report.js", "look.css", "report.css")


def prepare_report() -> None:
    """Compiles the page's templates, which takes a quarter of a second: for a caller that has to wait anyway."""
    for part in PARTS:
        template(part)


def render_report(
    title: str,
    runs: Sequence[Run],
    cards: Sequence[Card],
    rejects: Sequence[Reject],
    hero: Hero | None = None,
    photos: Sequence[Photo] = (),
) -> str:
    """The page as HTML, of less than 8 MB whatever goes in: the pictures come within bounds, and so do texts."""
    labels = _labels(runs)
    metrics = _metrics(runs)
    page = template("report.html.j2").render(
        title=title,
        runs=[_summary(run, label) for run, label in zip(runs, labels, strict=True)],
        metrics={key: scores for key, scores in metrics.items() if any(one["value"] is not None for one in scores)},
        absent=_absent(metrics),
        plots=_plots(runs, labels),
        scales=_scales(runs),
        gallery=_gallery(cards),
        hero=hero,
        photos=photos,
        rejects=_rejects(runs, rejects),
        stages=STAGES,
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
    """One run as the template reads it; `missing`: rows that are neither written nor rejected, 0 if all is well."""
    keys = ("rows", "restored", "rejected", "changed", "superseded", "faces", "shards")
    totals: dict[str, Any] = {
        key: finite(_at(run, "totals", key)) for key in (*keys, "accelerator_seconds", "wall_seconds")
    }
    rows, restored, rejected, changed = (totals[key] for key in keys[:4])
    totals["kept"] = None if None in (restored, changed) else restored - changed
    missing = None if None in (rows, restored, rejected) else rows - restored - rejected
    parts = {key: _at(run, key) or {} for key in ("method", "arguments", "versions", "recogniser")}
    facts = {"label": label, "totals": totals, "missing": missing, "command": _command(run), "became": _outcomes(run)}
    return {
        **run,
        **parts,
        **facts,
        "licences": _licences(run),
        "figures": _figures(run),
        "speed": _speed(run),
        "limits": _limits(run),
    }


def _limits(run: Run) -> str:
    """Which faces a run may change."""
    care = _at(run, "care")
    if not isinstance(care, Mapping):
        return ""
    if care.get("judge") is None:
        return "all: no judge is asked"
    harm, gain = (finite(care.get(key)) for key in ("max_harm", "min_gain"))
    return (
        "" if None in (harm, gain) else f"those expected to gain {gain:g} or more; at most {harm:.0%} of all may lose"
    )


def _speed(run: Run) -> dict[str, Any]:
    """Rows per second, and the share of each stage of the workers' time; None for what was not recorded."""
    rows, worked = finite(_at(run, "totals", "rows")), finite(_at(run, "timings", "work_seconds"))
    found = {name: finite(_at(run, "timings", "stages", name)) for name in STAGES}
    known = {name: seconds for name, seconds in found.items() if seconds is not None}
    total = sum(known.values())
    busy = finite(_at(run, "timings", "busy_share"))
    return {
        "rate": rows / worked if rows and worked else None,
        "busy": busy,
        "workers": finite(_at(run, "timings", "workers")),
        "most_workers": finite(_at(run, "timings", "most_workers")),
        "worker_seconds": finite(_at(run, "timings", "worker_seconds")),
        "seconds": known,
        "shares": {name: seconds / total for name, seconds in known.items()} if total else {},
        "longest": max((seconds for name, seconds in known.items() if name != IDLE), default=0.0) or 1.0,
        "rows": rows,
    }


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
    """The command line of this run: each argument is a flag, and so are the options of the method that have one."""
    method = {"method": _at(run, "method", "name"), "preset": _at(run, "method", "preset"), "seed": _at(run, "seed")}
    given = {key: value for key, value in (_at(run, "arguments") or {}).items() if value not in (None, [])}
    words = ["bfr", "restore", given.pop("source", "SRC"), given.pop("destination", "DST")]
    options = dict(given.pop("options", {}))
    flags = {key: options.pop(key) for key in list(options) if key in OPTION_FLAGS}
    for key, value in (method | given | flags).items():
        if value is not None and value is not False and not isinstance(value, Mapping) and key not in _NO_FLAGS:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
            words += [f"--{_FLAGS.get(key, str(key)).replace('_', '-')}"] + ([] if value is True else [text])
    for key, value in options.items():
        words += ["--set", f"options.{key}={value if isinstance(value, str) else json.dumps(value)}"]
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
        table.append({"code": code, "counts": numbers, "examples": listed.get(code, [])})
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


def _absent(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, list[str]]]:
    """Each reason why metrics have no value in any run, once, with their names."""
    reasons: dict[str, list[str]] = {}
    for key, scores in metrics.items():
        if all(score["value"] is None for score in scores):
            for why in dict.fromkeys(plain(score["why"]) for score in scores):
                reasons.setdefault(why, []).append(key)
    return list(reasons.items())


def _plots(runs: Sequence[Run], labels: Sequence[str]) -> list[Any]:
    """How figures are distributed: plots of one kind have the same scales, so that the eye can compare them."""
    found = []
    for kind in KINDS:
        stats = [_at(run, "statistics", kind.key) or _at(run, "distributions", kind.key) for run in runs]
        named = [(label, stat) for label, stat in zip(labels, stats, strict=True) if isinstance(stat, Mapping)]
        scales = _scales(runs) if kind.key == "identity_similarity" else []
        found += plots(kind, named, scales[0]["strangers"] if len(scales) == 1 else None)
    return found


def _scales(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the similarities of each recogniser of the runs mean."""
    names = dict.fromkeys(str(name) for run in runs if (name := _at(run, "recogniser", "name")))
    return [asdict(scale) for name in names if (scale := scale_of(name)) is not None]


def _gallery(cards: Sequence[Card]) -> dict[str, Any]:
    """The cards, the doubtful first, and what they can be sorted and filtered by. Anchors are unique."""
    seen: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    for order, card in enumerate(sorted(cards, key=lambda card: not card.is_doubtful)):
        seen[card.anchor] = count = seen.get(card.anchor, 0) + 1
        anchor = card.anchor if count == 1 else f"{card.anchor}-x{count}"
        outcome = None if card.outcome is None else plain(outcome_word(card.outcome)).replace("_", " ")
        numbers = {name: x for name, value in card.numbers.items() if (x := finite(value)) is not None}
        entries.append({"card": card, "anchor": anchor, "order": order, "outcome": outcome, "numbers": numbers})
    outcomes = [entry["outcome"] for entry in entries if entry["outcome"]]
    return {
        "entries": entries,
        "columns": in_order(tile.column for card in cards for tile in card.tiles),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        "doubtful": sum(card.is_doubtful for card in cards),
        "sorted_by": {
            name: how for name, how in SORTED_BY.items() if any(name in entry["numbers"] for entry in entries)
        },
    }


def write_report(store: Store, plan: Plan, manifest: list[dict[str, Any]], record: RunRecord, run: RestoreRun) -> None:
    """Writes the page of a finished run to `report/index.html`."""
    shown = run_gallery(store, plan, manifest, run, record)
    title, rejects = f"{run.method} on {redact(run.source)}", example_rejects(store, manifest)
    page = render_report(title, [record], shown.cards, rejects, shown.hero, shown.photos)
    store.write(REPORT, page.encode())
