"""SQL conditions over Arrow tables, evaluated in a process of their own, which may take so much time and memory.

A few characters of SQL can ask for any amount of work, and neither DuckDB's memory limit nor an interrupt stops every
kind of it. The process has nothing but the rows: no credentials in its environment, and a database without files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bfr_models.errors import BfrError, UsageError

MAX_SECONDS = 20.0
MAX_SECONDS_PER_ROW = 20e-6  # a million rows may take 20 s more; ordinary conditions take a hundredth of that
MAX_BYTES = 2**30  # beside the rows themselves
OUT_OF_MEMORY = 9  # exit code
EVALUATOR = "tasks.datasets.evaluate_conditions"


def check_conditions(conditions: Sequence[str], schema: pa.Schema) -> None:
    """UsageError unless each condition is one Boolean expression over these columns."""
    _evaluated(schema.empty_table(), conditions)


def rows_where(table: pa.Table, conditions: Sequence[str]) -> NDArray[np.bool_]:
    """(conditions, n) whether each condition holds for each row; null counts as false.

    UsageError for what `check_conditions` refuses, and for a condition that cannot be evaluated within the limits.
    """
    return _evaluated(table, conditions)


def _evaluated(table: pa.Table, conditions: Sequence[str]) -> NDArray[np.bool_]:
    if not conditions:
        return np.empty((0, table.num_rows), np.bool_)
    seconds = MAX_SECONDS + MAX_SECONDS_PER_ROW * table.num_rows
    with tempfile.TemporaryDirectory(prefix="bfr-where-") as folder:
        with pa.OSFile(f"{folder}/rows.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        limits = {"max_bytes": MAX_BYTES, "max_seconds": seconds, "out_of_memory": OUT_OF_MEMORY}
        request = {"conditions": list(conditions), **limits}
        answer = _ask(folder, json.dumps(request), seconds)
        if answer is None:
            raise UsageError(
                f"expected conditions that {table.num_rows} rows take at most {seconds:.0f} s and "
                f"{MAX_BYTES // 2**20} MiB for, found more in {'; '.join(conditions)[:500]!r}; ask for less at once"
            )
        if answer:
            raise UsageError(answer)
        return np.load(Path(folder) / "kept.npy", allow_pickle=False)


def _ask(folder: str, request: str, seconds: float) -> str | None:
    """What is wrong with the conditions, or nothing; None if the process came to its limits."""
    try:
        done = subprocess.run(  # noqa: S603  the condition is data on its standard input
            [sys.executable, "-m", EVALUATOR, folder],
            input=request, env=environment(), cwd=folder, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return str(json.loads(done.stdout))
    if done.returncode < 0 or done.returncode == OUT_OF_MEMORY:
        return None
    raise BfrError(f"the process that evaluates conditions failed: {done.stderr.strip()[-1000:]}")


def environment() -> dict[str, str]:
    """What the process needs to find its modules, and nothing that is secret."""
    # Arrow's own allocator claims a GiB of addresses at once, which is all there is.
    found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return found | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
