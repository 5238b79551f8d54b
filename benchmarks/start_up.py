"""How long a person waits besides the method: `bfr restore` of twelve faces on both engines, the same again when
nothing is left to do, and the demo.

    python benchmarks/start_up.py

Every command runs `--rounds` times; the quickest counts, as a machine is rarely quiet. CPU seconds are those of the
processes that it waits for. Writes `benchmarks/results/start_up.md`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from header import header  # noqa: E402

from tests import support  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "start_up.md"


@dataclass(frozen=True)
class Round:
    """One call of a command."""

    seconds: float
    cpu: float
    method: float = 0.0  # of the seconds, those in the method's own calls

    @property
    def besides(self) -> float:
        return self.seconds - self.method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="difface")
    parser.add_argument("--no-demo", action="store_true", help="leave the demo out, which takes a minute a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bfr-start-up-") as folder:
        work, best = Path(folder), dict[str, Round]()
        make_faces(work)
        for engine in ("local", "ray"):
            asked = ["restore", str(work / "lq"), str(work / engine), "--method", args.method, "--engine", engine]
            best[f"restore, {engine}"] = quickest(args.rounds, asked, work / engine)
            best[f"the same again, {engine}"] = quickest(args.rounds, asked)
        if not args.no_demo:
            best["demo"] = quickest(args.rounds, ["demo", "--out", str(work / "demo")], work / "demo")
    RESULTS.write_text(table(best, args))
    print(RESULTS.read_text())


def make_faces(work: Path) -> None:
    """The demo's twelve degraded faces."""
    from tasks.make_demo_faces import make_demo_faces

    make_demo_faces(str(work / "lq"))


def quickest(rounds: int, arguments: list[str], fresh: Path | None = None) -> Round:
    """The quickest call. `fresh`: what it makes, which is removed before each."""
    return min((called(arguments, fresh) for _ in range(rounds)), key=lambda one: one.seconds)


def called(arguments: list[str], fresh: Path | None) -> Round:
    if fresh is not None:
        shutil.rmtree(fresh, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*support.BFR, *arguments], check=True, capture_output=True, cwd=ROOT)  # noqa: S603
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Round(seconds, cpu, 0.0 if fresh is None else method_seconds(fresh))


def method_seconds(made: Path) -> float:
    """Of all runs that are there."""
    records = [json.loads(path.read_text()) for path in made.rglob("run.json")]
    return sum(float(record["timings"]["stages"]["method"]) for record in records)


def table(best: dict[str, Round], args: argparse.Namespace) -> str:
    lines = [
        header(),
        f"# From Enter to the prompt: twelve faces, {args.method}, the quickest of {args.rounds}",
        "",
        "| | seconds | in the method | besides it | CPU seconds |",
        "|---|---|---|---|---|",
        *(
            f"| {what} | {one.seconds:.1f} | {one.method:.1f} | {one.besides:.1f} | {one.cpu:.1f} |"
            for what, one in best.items()
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
