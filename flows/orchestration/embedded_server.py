"""The process of Prefect's embedded server: `python -m flows.orchestration.embedded_server PORT`.

It ends when the other end of its standard input is closed, and not by a signal: systemd sends SIGTERM to all of a
service's processes, and the run has yet to tell how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from tasks.config.environment import expect_imports

END_SECONDS = 5.0  # for the server to end in good order once its starter is gone


def main() -> None:
    """Serves Prefect's API on a port of this machine's loopback."""
    expect_imports()
    import uvicorn

    port = int(sys.argv[1])
    uvicorn.run(_app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


def _app() -> Any:
    """Prefect's application, once uvicorn has its signal handlers."""
    end = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, args=(end,), name="starter", daemon=True).start()
    from prefect.server.api.server import create_app

    from flows.orchestration.first_database import provide_database

    provide_database()
    return create_app()


def _end_with_starter(end: Any) -> None:
    while os.read(0, 1024):
        pass
    end(signal.SIGTERM, None)
    threading.Event().wait(END_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
