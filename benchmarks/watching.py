"""What a command takes: wall and CPU seconds, and the memory of all its processes together."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.25  # seconds between two looks


@dataclass(frozen=True)
class Taken:
    wall: float
    cpu: float  # seconds, of all processes, as last seen of each
    memory: int  # bytes: the highest sum of their proportional set sizes, in which shared memory counts once
    own: int  # bytes: the highest resident size of the command itself, or of what it has forked: `bfr` forks its driver


def watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Taken:
    """Runs a command to its end. SystemExit, with the end of what it said, if it fails."""
    with tempfile.TemporaryFile() as said:
        started, peak, own, cpu = time.monotonic(), 0, 0, dict[tuple[int, float], float]()
        process = psutil.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | dict(environment or {}), cwd="/"
        )
        while process.poll() is None:
            memory = 0
            for one in _with_descendants(process):
                try:
                    times = one.cpu_times()
                    cpu[one.pid, one.create_time()] = times.user + times.system
                    memory += _proportional(one.pid)
                    own = max(
                        own, one.memory_info().rss if one.cmdline()[-len(command) + 1 :] == list(command)[1:] else 0
                    )
                except (psutil.Error, OSError):  # it has just ended
                    continue
            peak = max(peak, memory)
            time.sleep(EVERY)
        wall = time.monotonic() - started
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)}: exit {process.returncode}: {said.read()[-1500:].decode()}")
    return Taken(wall, sum(cpu.values()), peak, own)


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _proportional(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0
