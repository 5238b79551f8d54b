"""What the verbs print for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Result = Mapping[str, Any]

_console = Console(highlight=False, soft_wrap=True)
_MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "bad": "[red]!![/]"}


def restore(record: Result) -> None:
    """Totals, scores and where the report is."""
    totals, statistics = record["totals"], record["statistics"]
    _console.print(
        f"{totals['rows']} rows in = {totals['restored']} restored + {totals['rejected']} rejected, "
        f"{totals['shards']} shards, {totals['wall_seconds']:.1f} s"
    )
    for name in ("identity_similarity", "identity_similarity_gt", "psnr", "ssim"):
        if "mean" in statistics[name]:
            s = statistics[name]
            _console.print(f"{name:>24}  mean {s['mean']:.4f}  p05 {s['p05']:.4f}  p95 {s['p95']:.4f}")
    for code, count in record["rejects"].items():
        _console.print(f"rejected as {code}: {count}")
    _console.print(f"report: {record['arguments']['destination']}/report/index.html")


def demo(result: Result) -> None:
    """One line per method."""
    for name, record in result["runs"].items():
        identity, psnr = (record["statistics"][key].get("mean") for key in ("identity_similarity_gt", "psnr"))
        scores = f"identity to gt {identity:.3f}, " if identity is not None else ""
        _console.print(f"{name}: {record['totals']['restored']} faces, {scores}{psnr:.2f} dB")
    _console.print(f"report: {result['report']}")


def pack(report: Result) -> None:
    _console.print(f"{report['rows']} rows in {report['files']} files, {len(report['skipped'])} other files left out")


def degrade(report: Result) -> None:
    _console.print(f"{report['rows']} pairs in {report['files']} files")
    for skipped in report["skipped"]:
        _console.print(f"skipped {skipped['id']}: {skipped['error']}: {skipped['detail']}", markup=False)


def methods(table: list[Result]) -> None:
    view = Table("method", "presets (side, licence)", "paper", "what it does")
    for spec in table:
        presets = "\n".join(f"{p['name']} ({p['size']} px, {p['licence']})" for p in spec["presets"])
        view.add_row(spec["name"], presets, spec["paper"], spec["summary"])
    _console.print(view)


def doctor(checks: list[Result]) -> None:
    for check in checks:
        _console.print(f"{_MARKS[check['state']]} {check['name']}: {check['found']}")
        if check["advice"]:
            _console.print(f"   {check['advice']}", markup=False)


def train(result: Result) -> None:
    _console.print(f"weights: {result['weights']}")
