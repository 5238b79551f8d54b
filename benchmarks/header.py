"""The header that every result has: the machine, the commit, the date and the command it was measured with."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path


def measured() -> dict[str, str]:
    """What the header says, for results that are JSON."""
    return {
        "machine": _machine(),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": _command(),
    }


def header() -> str:
    """The first line of a Markdown result, and the empty one after it."""
    facts = measured()
    return f"Measured on {facts['machine']}; commit {facts['commit']}, {facts['date']}: `{facts['command']}`\n\n"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {_accelerator()}"


def _accelerator() -> str:
    # A benchmark that has not imported torch has not used a GPU either.
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else "CPU"


def _commit() -> str:
    """Short hash of the checkout; `-dirty` if what ran is not quite that commit, results aside."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results")
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, cwd=Path(__file__).parent, check=False, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip()


def _command() -> str:
    """The command line, with files by name only: their folders say nothing to a reader."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
