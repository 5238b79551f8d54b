"""The end of a process in which work that cannot be interrupted is still running."""

from __future__ import annotations

import os
import sys
from threading import enumerate as threads

from tasks.worker.daemon_threads import WORKER

DISPATCHER = "bfr-dispatcher"  # the name of a thread


def end_if_busy(code: int) -> None:
    """Exits at once if a dispatcher or a daemon thread is still at work.

    A normal exit would stop the thread inside the native code of PyTorch or Ray, which aborts the process (SIGABRT)
    instead of giving `code`.
    """
    if any(thread.name in (DISPATCHER, WORKER) for thread in threads()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
