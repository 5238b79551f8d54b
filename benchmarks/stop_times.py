"""Seconds from a signal to the end of `bfr restore`, at random moments of its life, on a terminal of its own.

Each round starts the command in a new pseudo-terminal, waits for a random time, then presses Ctrl-C there, or sends
SIGTERM to its process group, or presses Ctrl-C twice. Counted as failures: an exit code other than 130 (or 0, where the
run was done before), more than LIMIT seconds, a process that is left, a traceback.

    python benchmarks/stop_times.py --rounds 30 --engines ray,local --source pairs/
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from header import header

LIMIT, LIMIT_TWICE = 10.0, 2.0
GIVE_UP = 60.0
COMMAND = "import sys; sys.argv[0] = 'bfr'; from flows.cli.main import main; main()"


def ctrl_c(terminal: int, process: int) -> None:
    os.write(terminal, b"\x03")


def terminate_group(terminal: int, process: int) -> None:
    os.killpg(process, signal.SIGTERM)


def ctrl_c_twice(terminal: int, process: int) -> None:
    ctrl_c(terminal, process)
    time.sleep(0.5)
    ctrl_c(terminal, process)


WAYS: dict[str, tuple[Callable[[int, int], None], float]] = {
    "ctrl-c": (ctrl_c, LIMIT),
    "group": (terminate_group, LIMIT),
    "twice": (ctrl_c_twice, LIMIT_TWICE),
}


def start(arguments: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Process id and terminal of a command that leads a session, as a login does."""
    process, terminal = pty.fork()
    if not process:
        os.execve(sys.executable, [sys.executable, "-c", COMMAND, *arguments], environment)  # noqa: S606
    return process, terminal


def follow(process: int, terminal: int, seconds: float) -> tuple[int | None, str]:
    """Reads the terminal for that long; the exit code if the process ends meanwhile, and what it wrote."""
    said, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):
            if select.select([terminal], [], [], 0.05)[0]:
                said += os.read(terminal, 65536)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), said.decode(errors="replace")
    return None, said.decode(errors="replace")


def left(mark: str) -> list[str]:
    """Processes that carry a mark in their environment: all that the command has started, by whatever way."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (place / "environ").read_bytes() and "Z (" not in (place / "status").read_text():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120])
    return found


def stop_once(engine: str, way: str, wait: float, source: str, folder: Path) -> dict[str, object]:
    """One round; `seconds` is None if the run was done before the signal."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    send, limit = WAYS[way]
    mark = f"BFR_STOP_TIMES={os.getpid()}-{time.monotonic_ns()}"
    environment = os.environ | dict([mark.split("=")]) | {"PREFECT_HOME": str(folder / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    arguments = ["restore", source, str(folder / "out"), "--method", "difface", "--engine", engine]
    process, terminal = start(arguments, environment)
    code, said = follow(process, terminal, wait)
    began, done = time.monotonic(), code is not None
    if not done:
        send(terminal, process)
        code, more = follow(process, terminal, GIVE_UP)
        said += more
    seconds, remaining = time.monotonic() - began, left(mark)
    if code is None:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    os.close(terminal)
    wrong = code not in (130, 0) or (not done and seconds > limit) or bool(remaining) or "Traceback" in said
    return {
        "engine": engine, "way": way, "after": round(wait, 1), "seconds": None if done else round(seconds, 2),
        "code": code, "left": remaining, "failed": wrong, "said": said[-600:] if wrong else "",
    }  # fmt: skip


def summary(rounds: list[dict[str, object]]) -> str:
    """A Markdown table: the distribution per engine and way."""
    lines = ["| engine | way | rounds | done before | p50 s | max s | failed |", "|---|---|---|---|---|---|---|"]
    for engine, way in sorted({(str(one["engine"]), str(one["way"])) for one in rounds}):
        mine = [one for one in rounds if (one["engine"], one["way"]) == (engine, way)]
        times = [float(str(one["seconds"])) for one in mine if one["seconds"] is not None] or [0.0]
        failed, done = sum(bool(one["failed"]) for one in mine), sum(one["seconds"] is None for one in mine)
        figures = f"{statistics.median(times):.1f} | {max(times):.1f}"
        lines.append(f"| {engine} | {way} | {len(mine)} | {done} | {figures} | {failed} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a dataset of faces whose restoration takes --longest seconds")
    parser.add_argument("--rounds", type=int, default=30, help="per engine")
    parser.add_argument("--engines", default="ray,local")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds; the signal comes at a moment before that")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, rounds = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.rounds):
            for engine in asked.engines.split(","):
                way = list(WAYS)[number % len(WAYS)]
                rounds.append(stop_once(engine, way, chance.uniform(0.05, asked.longest), asked.source, Path(folder)))
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    (Path(__file__).parent / "results" / "stop_times.md").write_text(f"{header()}{summary(rounds)}\n")
    print(summary(rounds))
    sys.exit(any(one["failed"] for one in rounds))


if __name__ == "__main__":
    main()
