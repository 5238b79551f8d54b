"""Coverage-guided fuzzing with atheris (`pip install atheris`), of what reads bytes that strangers made.

`python -m tests.fuzz.images --minutes 30 --folder DIR` fuzzes for so many minutes of CPU time. Only errors of our own
kinds are answers; any other, an answer after more than 5 s and more than 1 GiB of memory are crashes. DIR keeps the
corpus, generated at first and grown from then on, and the inputs of crashes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import atheris
import psutil

from bfr_models.errors import BfrError

_MOST_SECONDS, _MOST_MB, _MOST_BYTES = 5.0, 1024, 2**16
_RESTART_MB = 512
"""Above this the process begins anew with the corpus as it is: functions that atheris has instrumented keep some of
their results for ever (megabytes for each large image, none without instrumentation)."""


class _TooSlowError(Exception):
    pass


def fuzz(check: Callable[[bytes], None], seeds: Callable[[], Iterable[bytes]]) -> None:
    """Runs `check` on inputs grown from the seeds, until the time is over or an input makes it fail."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--done", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("inputs", nargs="*", help="only these inputs, each once")
    asked = parser.parse_args()
    corpus = asked.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in () if any(corpus.iterdir()) else seeds():
        (corpus / sha256(seed).hexdigest()[:20]).write_bytes(seed)
    end, done = time.process_time() + 60 * asked.minutes, asked.done

    def one(data: bytes) -> None:
        nonlocal done
        started, done = time.process_time(), done + 1
        with suppress(BfrError):
            check(data)
        now = time.process_time()
        if now - started > _MOST_SECONDS:
            raise _TooSlowError(f"expected {_MOST_SECONDS:g} s of CPU time at most, took {now - started:.1f} s")
        if now > end:
            print(f"{done} inputs until the CPU time was over, none of which failed", flush=True)
            os._exit(0)  # libFuzzer has no way to stop by CPU time
        if psutil.Process().memory_info().rss > _RESTART_MB * 2**20:
            _begin_anew(asked.folder, (end - now) / 60, done)

    limits = ["-timeout=120", f"-rss_limit_mb={_MOST_MB}", f"-max_len={_MOST_BYTES}", "-print_final_stats=1"]
    places = asked.inputs or [str(corpus)]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={asked.folder}/", *places], one)
    atheris.Fuzz()


def _begin_anew(folder: Path, minutes: float, done: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)  # libFuzzer's, which would outlive this process image
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "run with python -m"
    words = ["--minutes", str(minutes), "--folder", str(folder), "--done", str(done)]
    os.execv(sys.executable, [sys.executable, "-m", spec.name, *words])
