"""Prefect's embedded server, as Prefect starts it, but ended by nobody else than the process that uses it.

Prefect starts it in the terminal's process group, where Ctrl-C reaches it before the run can say good-bye, and leaves
it behind when the run is killed. Here it has a session of its own, and a pipe that closes when its starter is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

from prefect.server.api.server import SubprocessASGIServer, create_app
from prefect.settings import get_current_settings

from flows.orchestration.early_server import EPHEMERAL, command

END_SECONDS = 5.0  # for the server to end in good order once its starter is gone


class EmbeddedServer(SubprocessASGIServer):
    """Prefect keeps one server for each port, and asks for that of no given port by its base class: once one of these
    is made, it is the one that Prefect uses."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        assert self.port is not None, "chosen when it starts"
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(  # noqa: S603
            command(self.port),
            env={**os.environ, **EPHEMERAL, **settings},
            stdin=subprocess.PIPE,  # held open for as long as this process lives
            start_new_session=True,
        )

    def stop(self) -> None:
        if self.server_process is not None and self.server_process.stdin is not None:
            self.server_process.stdin.close()  # the one thing that it heeds
        super().stop()


def app_of_starter() -> Any:
    """Prefect's application, in a server that ends when the other end of its standard input is closed, and not by a
    signal: systemd sends SIGTERM to all of a service's processes, and the run has yet to tell how it ended."""
    end = signal.getsignal(signal.SIGTERM)  # uvicorn's
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, args=(end,), name="starter", daemon=True).start()
    return create_app()


def _end_with_starter(end: Any) -> None:
    while os.read(0, 1024):
        pass
    end(signal.SIGTERM, None)
    threading.Event().wait(END_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
