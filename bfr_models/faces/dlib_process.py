"""dlib's recogniser in processes of its own: it keeps the interpreter's lock for as long as it looks at a face.

A process reads chips, `CHIP_BYTES` each, from its standard input, and writes a vector of `LENGTH` doubles for each to
its standard output. It ends with its input, and so with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bfr_models.pixels import Uint8Image

CHIP_SIDE = 150  # px; what the recogniser was trained on
LENGTH = 128
CHIP_BYTES, VECTOR_BYTES = CHIP_SIDE * CHIP_SIDE * 3, LENGTH * 8
MOST_PROCESSES = 4


class DlibProcesses:
    """Started by the first faces: as many as half the cores, at most `MOST_PROCESSES`. Serves one thread at a time."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []

    def describe(self, chips: Sequence[Uint8Image]) -> NDArray[np.float64]:
        """(n, LENGTH): dlib's descriptors of chips of (CHIP_SIDE, CHIP_SIDE, 3)."""
        with self._lock:
            self._start(min(len(chips), MOST_PROCESSES, max(1, (os.cpu_count() or 1) // 2)))
            parts = [chips[place :: len(self._processes)] for place in range(len(self._processes))]
            vectors = np.empty((len(chips), LENGTH))
            for rank in range(len(parts[0]) if parts else 0):  # a face each: a pipe holds no more than one
                busy = [(place, part[rank]) for place, part in enumerate(parts) if rank < len(part)]
                for place, chip in busy:
                    self._send(self._processes[place], chip)
                for place, _ in busy:
                    vectors[place + rank * len(parts)] = self._receive(self._processes[place])
            return vectors

    def _start(self, count: int) -> None:
        while len(self._processes) < count:
            code = f"from {__name__} import serve; serve()"
            command = [sys.executable, "-P", "-c", code, str(self._file)]
            paths = os.pathsep.join(filter(None, sys.path))
            self._processes.append(
                subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": paths},
                    start_new_session=True,  # Ctrl-C is for the process that it serves
                )
            )

    def _send(self, process: subprocess.Popen[bytes], chip: Uint8Image) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(np.ascontiguousarray(chip).data)
            process.stdin.flush()
        except BrokenPipeError:
            raise self._lost(process) from None

    def _receive(self, process: subprocess.Popen[bytes]) -> NDArray[np.float64]:
        assert process.stdout is not None
        data = process.stdout.read(VECTOR_BYTES)
        if len(data) < VECTOR_BYTES:
            raise self._lost(process)
        return np.frombuffer(data)

    def _lost(self, process: subprocess.Popen[bytes]) -> ChildProcessError:
        """What to raise; the next call starts new ones."""
        code = process.wait()
        self._processes.clear()
        return ChildProcessError(f"expected an answer of the process of dlib's recogniser, which ended with {code}")


def serve() -> None:
    """What such a process does."""
    import dlib

    network = dlib.face_recognition_model_v1(sys.argv[1])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(data := source.read(CHIP_BYTES)) == CHIP_BYTES:
        chip = np.frombuffer(data, np.uint8).reshape(CHIP_SIDE, CHIP_SIDE, 3)
        sink.write(np.array(network.compute_face_descriptor(chip), np.float64).data)
        sink.flush()
