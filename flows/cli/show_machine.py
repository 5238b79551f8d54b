"""What the verbs about machines and weights print on a terminal."""

from __future__ import annotations

from itertools import groupby

from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from flows.cli.show import Result, console

_STATES = {"present": "[green]yes[/]", "absent": "no", "damaged": "[red]damaged[/]"}
_MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "bad": "[red]!![/]"}


def methods(table: list[Result]) -> None:
    view = Table("method", "presets (side, licence)", "paper", "what it does")
    for spec in table:
        presets = "\n".join(f"{p['name']} ({p['size']} px, {p['licence']})" for p in spec["presets"])
        view.add_row(spec["name"], presets, spec["paper"], spec["summary"])
    console.print(view)


def doctor(checks: list[Result]) -> None:
    if any(check["node"] for check in checks):
        _nodes(checks)
        return
    for check in checks:
        console.print(f"{_MARKS[check['state']]} {check['name']}: {escape(check['found'])}")
        if check["advice"]:
            console.print(f"   {check['advice']}", markup=False)


def _nodes(checks: list[Result]) -> None:
    """One table: what each node of a cluster says, and what to do."""
    view = Table("node", "", "check", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
    for node, found in groupby(checks, lambda check: str(check["node"])):
        for number, check in enumerate(found):
            where, mark = Text(node if number == 0 else ""), _MARKS[check["state"]]
            view.add_row(where, mark, check["name"], Text(check["found"]), Text(check["advice"]))
        view.add_section()
    console.print(view, soft_wrap=False)


def weights(rows: list[Result]) -> None:
    """The table of `bfr weights list` and `verify`."""
    view = Table(Column("weights", no_wrap=True), "licence", Column("MiB", justify="right"), "sha256", "here")
    for row in rows:
        licence = f"{row['licence'] or '?'}{'*' if row['non_commercial'] else ''}"
        size = "?" if row["bytes"] is None else f"{row['bytes'] / 2**20:.1f}"
        view.add_row(row["name"], licence, size, (row["sha256"] or "unknown")[:8], _STATES[row["state"]])
    console.print(view)
    if any(row["non_commercial"] for row in rows):
        console.print("* non-commercial use only")
    for row in rows:
        if row["path"]:
            console.print(f"{row['name']}: {row['path']}", markup=False)
        if row["state"] == "damaged":
            console.print(f"{row['name']}: {row['why']}", markup=False)


def weights_here(rows: list[Result]) -> None:
    """What `bfr weights fetch` and `import` put into the cache."""
    for row in rows:
        was_here = " (was here)" if row.get("fetched") is False else ""
        console.print(f"{row['name']}: {row['path']}, sha256 {row['sha256'][:12]}{was_here}", markup=False)


def jobs(found: list[Result] | Result) -> None:
    """What `bfr submit` says of one job, or the table of all."""
    if not isinstance(found, list):
        _job(found)
        return
    view = Table(Column("job", no_wrap=True), "state", "started", Column("command", overflow="fold"))
    for one in found:
        view.add_row(one["job"], one["state"], one["started"] or "", Text(one["command"]))
    console.print(view, soft_wrap=False)


def _job(found: Result) -> None:
    if "logs" in found:
        console.print(found["logs"], markup=False, end="")
        return
    console.print(f"{found['job']}: {found['state']}: {found['command']}", markup=False)
    if found.get("message"):
        console.print(found["message"], markup=False)
    if found.get("stopping") is False:
        console.print("it had ended already")
    if found["state"] in ("pending", "running"):
        console.print(f"next: bfr submit --logs {found['job']} --follow    # or --status, --stop")
