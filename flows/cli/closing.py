"""What a finished run says at its end: on a terminal in a box, elsewhere line by line; then what may come next.

Commands stand outside of the box, in one line each, so that they can be copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Column, Table

from tasks.runs.outcomes import standing_rejects, written_words

Result = Mapping[str, Any]

MENDABLE = frozenset({"missing", "undecodable", "too_large", "too_small", "bad_mask", "bad_gt"})
"""Codes of files that cannot be used as they are: to try them again, as they are, would change nothing."""
_SUPERSEDED = "of files packed anew since; they are neither exported nor among the rejects that count"
SCORES = ("identity_similarity", "identity_similarity_gt", "psnr", "ssim")


def closing(console: Console, record: Result) -> None:
    """Prints the end of a run by its run.json."""
    if console.is_terminal:
        box = Table(Column(justify="right", style="dim"), Column(), box=ROUNDED, show_header=False)
        box.title, box.title_style = f"{record['method']['name']} {record['method']['preset']}", "bold"
        for label, told in _facts(record):
            box.add_row(label, told)
        console.print(box, soft_wrap=False)
    else:
        for line in _lines(record):
            console.print(line)
    for warning in record.get("warnings", ()):
        console.print(warning, style="yellow", markup=False)
    if not console.is_terminal:
        for code, count in record["rejects"].items():
            console.print(f"rejected as {code}: {count}")
    console.print(f"report: {record['arguments']['destination']}/report/index.html", markup=False)
    for command in _next(record):
        console.print(f"next:   {command}", markup=False)


def _facts(record: Result) -> Iterator[tuple[str, str]]:
    """Label and value of each line of the box."""
    totals = record["totals"]
    yield "rows", f"{totals['rows']:,} in = {written_words(totals)} + {totals['rejected']:,} rejected"
    yield "faces", f"{totals['faces']}{outcomes_of(record['outcomes'])}"
    for code, count in record["rejects"].items():
        yield "rejected", f"{count:,} as {code}"
    if superseded := totals.get("superseded"):
        yield "superseded", f"{superseded:,} rows, {_SUPERSEDED}"
    for name, told in _scores(record):
        yield name.replace("_", " "), told
    yield "took", f"{totals['wall_seconds']:.1f} s for {totals['shards']:,} shards"


def _lines(record: Result) -> Iterator[str]:
    """The same for a log."""
    totals = record["totals"]
    yield (
        f"{totals['rows']:,} rows in = {written_words(totals)} + {totals['rejected']:,} rejected, "
        f"{totals['shards']} shards, {totals['wall_seconds']:.1f} s"
    )
    if superseded := totals.get("superseded"):
        yield f"superseded: {superseded:,} of these rows, {_SUPERSEDED}"
    for name, told in _scores(record):
        yield f"{name:>24}  {told}"
    yield f"{totals['faces']} faces{outcomes_of(record['outcomes'])}"


def _scores(record: Result) -> Iterator[tuple[str, str]]:
    statistics = record["statistics"]
    for name in SCORES:
        if "mean" in statistics[name]:
            s = statistics[name]
            yield name, f"mean {s['mean']:.4f}  p05 {s['p05']:.4f}  p95 {s['p95']:.4f}"
    if (scale := record.get("identity_scale")) and "mean" in statistics["identity_similarity"]:
        yield (
            "",
            f"{scale['recogniser']}: strangers {scale['typical_strangers']:.2f}, same person, other photo "
            f"{scale['typical_same']:.2f}; doubtful below {scale['strangers']:.3f}",
        )


def _next(record: Result) -> Iterator[str]:
    """The commands that a finished run is most likely to be followed by."""
    arguments = record["arguments"]
    source, destination = arguments["source"], arguments["destination"]
    has_files, run = source.startswith(f"{destination}/"), quote(destination)  # the first: it was given files
    rejects = standing_rejects(record)
    # Where images are addresses, one that is missing may be there the next time.
    mendable = [code for code in rejects if code in MENDABLE and (has_files or code != "missing")]
    if mendable:
        what, named = "files" if has_files else "rows", ", ".join(mendable)
        yield f"mend the {what} that the report names as {named}, and run the same command again; the others stay done"
    if others := [code for code in rejects if code not in mendable]:
        yield f"look at {destination}/rejected; what may pass is tried again with --retry-rejected {','.join(others)}"
    if not record["totals"]["restored"]:
        return  # there is nothing to look at, to export or to choose from
    if has_files:
        yield f"bfr review {run}        # look at the faces and decide"
        yield f"bfr export {run} DIR    # the same files, restored"
    elif "mean" in record["statistics"]["identity_similarity"]:
        yield f'bfr curate {run} DIR --where "identity_similarity > 0.9"    # the best rows as a dataset'


def outcomes_of(counts: Mapping[str, int]) -> str:
    """Numbers by outcome, in words."""
    listed = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items())
    return f": {listed}" if listed else ""
