"""What the verbs print on a terminal; with --json they print the same results as one document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flows.cli.closing import closing, outcomes_of

Result = Mapping[str, Any]

console = Console(highlight=False, soft_wrap=True)
EXAMPLES = 10


def restore(record: Result) -> None:
    """Totals, scores, warnings, the path of the report, and what may come next."""
    closing(console, record)


def curate(record: Result) -> None:
    """How many rows each step left, and the scores before and after."""
    for step in record["steps"]:
        console.print(f"{step['left']:>10}  {step['step']}", markup=False)
    for name, after in record["statistics"].items():
        if isinstance(after, Mapping) and "mean" in after:
            before = record["statistics_of_run"][name]["mean"]
            console.print(f"{name:>24}  mean {before:.4f} -> {after['mean']:.4f}")
    if found := record["dedupe"]:
        console.print(f"{found['dropped']} near-duplicates in {found['groups']} groups, by {found['look']}")
    outdated(record.get("outdated_decisions", 0))
    console.print(f"report: {record['report']}", markup=False)


def outdated(decisions: int) -> None:
    """Says how many faces a review has decided about that were done again since."""
    if decisions:
        console.print(
            f"[yellow]{decisions} decisions no longer count[/]: these faces have been restored again since somebody "
            "looked at them; `bfr review` shows them as open"
        )


def verified(found: Result) -> None:
    """The verdict of `bfr verify`, and a table of problems."""
    console.print(
        f"{found['destination']}: {found['rows_in']} rows in, {found['restored']} written + {found['rejected']} "
        f"rejected in {found['shards']} shards; {found['files']} files hashed, {found['bytes'] / 2**20:.1f} MiB",
        markup=False,
    )
    if found["decisions"]:
        console.print(f"{found['decisions']} faces decided about in a review")
    if found["ok"]:
        console.print("[green]ok[/]: every row exactly once, every file as committed")
        return
    console.print(_problems(found["problems"]))
    from tasks.runs.damage import NOT_DAMAGE

    if any(problem["kind"] not in NOT_DAMAGE for problem in found["problems"]):
        console.print(f"`bfr repair {quote(found['destination'])}` mends what can be mended", markup=False)


def repaired(found: Result) -> None:
    """What `bfr repair` found, what it did, and what is left."""
    if not found["found"]:
        console.print(Text.assemble(("ok", "green"), f": nothing is damaged in {found['destination']}"))
        return
    for line in found["mended"]:
        console.print(line, markup=False)
    if found["set_aside"]:
        console.print(
            f"{len(found['set_aside'])} damaged files are kept in {found['destination']}/damaged", markup=False
        )
    if found["ok"]:
        console.print("[green]ok[/]: mended; every row exactly once, every file as committed")
        return
    console.print(_problems(found["left"]))
    console.print(f"left to do: {found['next']}", markup=False)


def _problems(problems: Iterable[Result]) -> Table:
    view = Table("problem", "where", "detail")
    for problem in problems:
        view.add_row(*(Text(problem[name]) for name in ("kind", "where", "detail")))
    return view


def vacuumed(found: Result) -> None:
    """What `bfr vacuum` removed."""
    for entry in found["removed"]:
        console.print(f"{entry['what']}: {entry['path']} ({entry['bytes']} bytes)", markup=False)
    did, size = "would remove" if found["dry_run"] else "removed", f"{found['bytes'] / 2**20:.1f} MiB"
    left = f"{did} {len(found['removed'])} leftovers, {size}; kept {found['too_young']} younger ones"
    console.print(f"{left}; in {found['destination']}", markup=False)


def explained(rows: list[Result]) -> None:
    """What `bfr explain` found, one table per row."""
    for row in rows:
        view = Table(show_header=False, title=Text(f"{row['id']}: {row['became']}"))
        for name, value in row.items():
            if name == "faces":
                for number, face in enumerate(value or (), start=1):
                    view.add_row(f"face {number}", Text(", ".join(_face_words(face))))
            elif value is not None and name not in ("id", "state", "became"):
                view.add_row(name, Text(f"{value:.4g}" if isinstance(value, float) else str(value)))
        console.print(view)


def _face_words(face: Result) -> Iterator[str]:
    """One entry of the column `faces`: its side, what became of it, and why."""
    if (side := face.get("side")) is not None:
        yield f"{side:.0f} px"
    outcome, gain = face["outcome"], face.get("gain")
    yield outcome if gain is None else outcome.partition(" (gain ")[0]
    if gain is not None:
        yield f"gain {gain:.2f} ± {face['gain_spread']:.2f}, harm {face['harm']:.2f}"
    if face["identity_similarity"] is not None:
        yield f"identity {face['identity_similarity']:.3f}" + (f" ({face['identity']})" if face["identity"] else "")


def reprocessed(outcome: Result) -> None:
    """What was restored, which generation is current now, and why."""
    restore(outcome["run"])
    if outcome["comparison"]:
        console.print(f"old against new: {outcome['comparison']}", markup=False)
    for reason in outcome["held_back"]:
        console.print(f"{outcome['generation']} was held back: {reason}", markup=False)
    for name in outcome["expired"]:
        console.print(f"expired: {name}")
    console.print(f"current generation: {outcome['current']}")
    if outcome["held_back"]:
        console.print(f"to make it current anyway: `bfr generations switch DST {outcome['generation']} --force`")


def deployed(found: Result) -> None:
    """The deployment, and the commands that run it."""
    console.print(f"{found['deployment']}: {found['schedule']}, in the work pool {found['work_pool']}", markup=False)
    if found["gpu_pool"]:
        console.print(f"holds the concurrency limit {found['gpu_pool']} while it restores", markup=False)
    console.print(f"measured by {', '.join(f'{what}: {name}' for what, name in found['measured_by'].items())}")
    for command in found["next"]:
        console.print(f"  {command}", markup=False)


def generations(found: list[Result]) -> None:
    """The table of `bfr generations list`."""
    view = Table(Column("generation", no_wrap=True), "state", "rows", "restored", "finished")
    for row in found:
        state = f"{row['state']}, held back: {'; '.join(row['held_back'])}" if row["held_back"] else row["state"]
        view.add_row(row["name"], Text(state), *(str(row[key] or "") for key in ("rows", "restored", "finished")))
    console.print(view)


def current_generation(found: Result) -> None:
    console.print(f"current generation: {found['current']}")


def expired(found: Result) -> None:
    console.print(f"expired: {', '.join(found['expired']) or 'none'}")


def report(result: Result) -> None:
    console.print(f"report: {result['report']}", markup=False)


def estimate(facts: Result) -> None:
    """What `bfr restore --plan` found."""
    console.print(
        f"{facts['rows']} rows in {facts['shards']} shards of {facts['files']} files; "
        f"{facts['rows_to_do']} rows in {facts['shards_to_do']} shards are left to do"
    )
    if facts["rows_to_do"]:
        console.print(
            f"about {timedelta(seconds=round(facts['seconds']))} on {facts['workers']} workers like this machine "
            f"({facts['seconds_per_row']} s/row), {facts['bytes'] / 2**20:.1f} MiB of restored faces"
        )
        faces = sum(facts["sample_outcomes"].values())
        console.print(f"a sample of {faces} faces{outcomes_of(facts['sample_outcomes'])}")
        if (assessed := facts["assessed"]) and assessed["outcomes"]:
            console.print(f"by the assessment {assessed['faces']} faces; pictures{outcomes_of(assessed['outcomes'])}")
    for warning in facts["warnings"]:
        console.print(warning, style="yellow", markup=False)


def demo(result: Result) -> None:
    """One line per method, and the path of the report."""
    for name, record in result["runs"].items():
        identity, psnr = (record["statistics"][key].get("mean") for key in ("identity_similarity_gt", "psnr"))
        scores = f"identity to gt {identity:.3f}, " if identity is not None else ""
        console.print(f"{name}: {record['totals']['restored']} faces, {scores}{psnr:.2f} dB")
    console.print(f"an old photograph, restored: {result['files']}", markup=False)
    console.print(f"report: {result['report']}", markup=False)


def score(result: Result) -> None:
    """Mean and percentiles of each metric, and how many rows could not be scored."""
    for name, s in result["statistics"].items():
        if s and "mean" in s:
            console.print(f"{name:>24}  mean {s['mean']:.4f}  p05 {s['p05']:.4f}  p95 {s['p95']:.4f}  n {s['n']}")
        elif s and s["value"] is not None:
            console.print(f"{name:>24}  {s['value']:.4f}")
    for why in dict.fromkeys(result["unmeasured"].values()):
        names = [name for name, found in result["unmeasured"].items() if found == why]
        console.print(f"in no row: {', '.join(names)} ({why})", markup=False)
    if failed := result["failed"]:
        console.print(f"{result['rows']} rows, {failed} of them could not be read; the column `error` says why")
    else:
        console.print(f"{result['rows']} rows, all of them read")


def fid(result: Result) -> None:
    """The distance, the numbers of faces, and a warning if they are too few to trust it."""
    for name, value in result.items():
        if name.startswith(("fid", "fd_")):
            console.print(f"{name}: {value:.4f}  ({' and '.join(map(str, result['n']))} faces)")
        elif name.startswith(("kid", "kd_")):
            console.print(f"{name}: {value['mean']:.6f} ± {value['std']:.6f}  ({value['subsets']} x {value['size']})")
        elif name in ("precision", "recall"):
            console.print(f"{name}: {value:.3f}")
    if any(result["skipped"]):
        console.print(f"rows without a decodable image: {result['skipped'][0]} and {result['skipped'][1]}")
    if result["warning"]:
        console.print(result["warning"], style="yellow", markup=False)


def evaluate(result: Result) -> None:
    """The table, and the path of the report."""
    from tasks.report.score_table import to_markdown

    console.print(to_markdown(result["comparison"]), markup=False)
    console.print(f"report: {result['report']}", markup=False)


def pack(report: Result) -> None:
    console.print(f"{report['rows']} rows in {report['files']} files, {len(report['skipped'])} other files skipped")
    for what in ("skipped", "lost"):
        for line in by_reason(report[what]):
            console.print(f"{what}: {line}", markup=False, soft_wrap=True)


def by_reason(files: Iterable[Result]) -> Iterator[str]:
    """Files and why they are named, in a line for each reason, with the first three names."""
    named: dict[str, list[str]] = {}
    for file in files:
        named.setdefault(file["why"], []).append(repr(file["name"]))
    for why, names in named.items():
        some = [*names[:3], f"{len(names) - 3} more"] if len(names) > 3 else names
        yield f"{', '.join(some)}: {why}"


def degrade(report: Result) -> None:
    console.print(f"{report['rows']} pairs in {report['files']} files")
    for skipped in report["skipped"]:
        console.print(f"skipped {skipped['id']}: {skipped['error']}: {skipped['detail']}", markup=False)


def train(result: Result) -> None:
    console.print(f"weights: {result['weights']}", markup=False)
