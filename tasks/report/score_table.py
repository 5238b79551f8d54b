"""One table of the scores of several methods on the same rows, as Markdown, LaTeX and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfr_models.metrics.paired import bootstrap_interval, paired_wins
from bfr_models.metrics.protocols import is_lower_better


@dataclass(frozen=True)
class Metric:
    """A column of per-row values."""

    key: str  # the column of a run's output
    label: str
    digits: int

    @property
    def lower_is_better(self) -> bool:
        return self.key == "seconds" or is_lower_better(self.key)

    @property
    def arrow(self) -> str:
        return "↓" if self.lower_is_better else "↑"

    @property
    def latex_arrow(self) -> str:
        return r"$\downarrow$" if self.lower_is_better else r"$\uparrow$"

    def best(self, values: Iterable[float]) -> float:
        return min(values) if self.lower_is_better else max(values)


METRICS = (
    Metric("psnr", "PSNR, dB", 2),
    Metric("ssim", "SSIM", 3),
    Metric("ms_ssim", "MS-SSIM", 3),
    Metric("lpips", "LPIPS", 3),
    Metric("identity_similarity_gt", "identity to gt", 3),
    Metric("identity_degrees_gt", "its angle, °", 1),
    Metric("identity_similarity", "identity to input", 3),
    Metric("lmd_dlib_5", "LMD (dlib 5), px", 2),
    Metric("niqe", "NIQE", 2),
    Metric("seconds", "s a face", 2),
)

Scores = Mapping[str, Sequence[float | None]]
"""Metric key -> one value per row, in the same order for every method."""


def score_table(scores: Mapping[str, Scores], distances: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """{methods: {name: {metric: {mean, low, high, n, wins: {other: share}}}}}; a metric that no row has is left out.

    `distances` are scores of a method's faces as a set, such as FID, by name. Means are over the rows where all methods
    have a finite value, so that they can be compared; `low` and `high` bound the 95 % bootstrap interval of the mean.
    """
    names = list(scores)
    table: dict[str, Any] = {name: {} for name in names}
    for metric in METRICS:
        rows = zip(*(scores[name][metric.key] for name in names), strict=True)
        complete = [row for row in rows if all(value is not None and math.isfinite(value) for value in row)]
        by_name = dict(zip(names, zip(*complete, strict=True), strict=False))
        for name, values in by_name.items():
            low, high = bootstrap_interval(values)
            table[name][metric.key] = {
                "mean": math.fsum(values) / len(values),
                "low": low,
                "high": high,
                "n": len(values),
                "wins": {
                    other: paired_wins(values, theirs, lower_is_better=metric.lower_is_better)
                    for other, theirs in by_name.items()
                    if other != name
                },
            }
    return {
        "methods": table,
        "distances": {name: dict(distances.get(name, {})) for name in names},
        "interval": "95 % bootstrap of the mean",
        "baseline": names[0],
    }


def to_markdown(table: Mapping[str, Any]) -> str:
    """A row per method: the mean, its interval, and the share of rows on which it beats the first method."""
    metrics, distances = _present(table), _distances(table)
    heads = ["method", *(f"{m.label} {m.arrow}" for m in metrics), *(f"{name} ↓" for name in distances)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, found in table["methods"].items():
        cells = [_cell(m, found[m.key], table, name) for m in metrics]
        cells += [f"**{table['distances'][name][distance]:.4f}**" for distance in distances]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    n = min(found[m.key]["n"] for found in table["methods"].values() for m in metrics) if metrics else 0
    lines.append(f"\nMeans over {n} rows, [95 % interval], and how many of the rows beat {table['baseline']}'s.")
    rejected = [f"{count} by {name}" for name, count in table.get("rejected", {}).items() if count]
    if rejected:
        lines.append(f"Rejected, and so compared with nothing: {', '.join(rejected)}.")
    if why := table.get("why_no_distances"):
        lines.append(f"No Fréchet distance is compared: {why}.")
    return "\n".join(lines) + "\n"


def to_latex(table: Mapping[str, Any]) -> str:
    """A booktabs `tabular` with the best value of each column in bold."""
    metrics = _present(table)
    best = {m.key: m.best(found[m.key]["mean"] for found in _found(table)) for m in metrics}
    distances = _distances(table)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(metrics) + len(distances))}}}", r"\toprule"]
    lines += [
        " & ".join(["Method", *(f"{m.label} {m.latex_arrow}" for m in metrics), *map(_escaped, distances)]) + r" \\",
        r"\midrule",
    ]
    for name, found in table["methods"].items():
        cells = [_escaped(name)]
        for m in metrics:
            mean = found[m.key]["mean"]
            cells.append(rf"\textbf{{{mean:.{m.digits}f}}}" if mean == best[m.key] else f"{mean:.{m.digits}f}")
        cells += [f"{table['distances'][name][distance]:.4f}" for distance in distances]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(name: str) -> str:
    return name.replace("_", r"\_")


def _present(table: Mapping[str, Any]) -> list[Metric]:
    return [m for m in METRICS if all(m.key in found for found in _found(table))]


def _distances(table: Mapping[str, Any]) -> list[str]:
    """Names of the distances that every method has."""
    first, *others = table["distances"].values()
    return [name for name in first if all(name in other for other in others)]


def _found(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(table["methods"].values())


def _cell(metric: Metric, score: Mapping[str, Any], table: Mapping[str, Any], name: str) -> str:
    mean, low, high = (f"{score[key]:.{metric.digits}f}" for key in ("mean", "low", "high"))
    wins = "" if name == table["baseline"] else f" {score['wins'][table['baseline']]:.0%}"
    return f"**{mean}** [{low}, {high}]{wins}"
